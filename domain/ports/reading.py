"""The port to one stream of a source, in whichever form its rows travel."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator

from domain.loads.checkpoint import Position
from domain.loads.way import Passage
from domain.ports.batches import Batch, EncodedRows, SourceBatch, TextRows


class IReader(ABC):
    """Reads one stream of a read set, in its order."""

    @abstractmethod
    def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        """Yield the rows strictly after a position, at most `batch_rows` and `batch_bytes` at a time and `limit` in
        all.

        The caller closes the generator (`aclosing`) when it stops early, before it leaves the reader.

        Raises:
            WorkFailedError: a single row is larger than `batch_bytes` (`source.row_too_large`).
        """

    async def place(self, batch: SourceBatch, ordinal: int) -> str | None:
        """Say where in the source a row of a batch stands, for people, such as a file and a line; None where it has
        none.
        """
        return None


class IPassingReader(IReader):
    """Also hands out rows undecoded, where the store's `wire` gave a format for them."""

    @abstractmethod
    def encoded(self, after: Position | None, passage: Passage) -> AsyncGenerator[EncodedRows, None]:
        """Yield the same rows undecoded, with constants appended."""

    @abstractmethod
    async def decoded(self, rows: EncodedRows) -> Batch:
        """Read rows that were handed out undecoded once more, in the same snapshot, as a batch."""


class ITextReader(IReader):
    """Also hands out rows as text, where the store's `wire` is text."""

    @abstractmethod
    def texts(self, after: Position | None, *, max_rows: int, max_bytes: int) -> AsyncGenerator[TextRows, None]:
        """Yield the same rows as text, each part to be written before the next is asked for."""
