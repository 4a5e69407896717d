"""Rows on their way between stores: as read, as they travel undecoded, and as they were judged."""

from dataclasses import dataclass
from typing import Protocol

from domain.loads.checkpoint import Merged, Position
from domain.quality.measures import Counts, Measures


class Batch(Protocol):
    """Rows in columns: anything that speaks the Arrow PyCapsule protocol and knows its size."""

    @property
    def num_rows(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


LARGE_ROW = 512 * 1024
"""Bytes of a row, on average, from which on few travel at a time: each is in memory in several forms."""
LARGE_BYTES = 16 * 1024 * 1024
"""What a batch of such rows has, or one row."""


def are_large(rows: Batch) -> bool:
    """Whether rows are so large that one batch of them at a time is enough."""
    return rows.nbytes > LARGE_ROW * rows.num_rows


@dataclass(frozen=True)
class EncodedRows:
    """Rows in a wire format that source and destination share, never decoded on the way.

    `types` are the source's own names of the columns' types, in the order of `columns`. They come strictly after
    `after`; `position` is where a resumed read goes on after them. `seen` has the same rows' columns that rules look
    at.
    """

    after: Position | None
    position: Position
    columns: tuple[str, ...]
    types: tuple[str, ...]
    num_rows: int
    chunks: tuple[bytes, ...]
    seen: Batch | None = None

    @property
    def nbytes(self) -> int:
        """Size on the wire."""
        return sum(len(chunk) for chunk in self.chunks)


class TextRows(Protocol):
    """Rows of text columns that are read only while they are written, once; what is said of them holds after that.

    `position` is where a resumed read goes on after them, `is_last` says that none follow, and `error` is what broke
    the reading off.
    """

    @property
    def num_rows(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def position(self) -> Position: ...

    @property
    def is_last(self) -> bool: ...

    @property
    def error(self) -> Exception | None: ...

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


@dataclass(frozen=True)
class Conversion:
    """How a destination makes a column of the text that the source calls `given`: the type is in the destination's own
    words, and the expression of that column is an error where the type does not hold what was written.
    """

    name: str
    type: str
    given: str
    expression: str


@dataclass(frozen=True)
class Conversions:
    """How a destination makes its columns of text, one of each column of the source."""

    dialect: str
    columns: tuple[Conversion, ...]


@dataclass(frozen=True)
class SourceBatch:
    """Rows as read. `position` is where a resumed read goes on after them; None when the read has no total order.

    `origins` are the places in the quarantine of rows that are replayed.
    """

    data: Batch
    position: Position | None
    origins: tuple[Position, ...] | None = None


@dataclass(frozen=True)
class JudgedBatch:
    """Rows that may land, and the refused ones.

    `refused` has the columns ordinal (int64, place in the source batch), kind (`conversion` or `rule`), rule, reason
    record (the source row as JSON), columns (the types of its values) and merge_key (what its key at the destination is
    known by, where rows are merged and it is known; those that may land have `_headrace_ordinal` too). With `origins`
    the rows are replayed: what is refused stays where it is, the rest is marked as repaired.
    """

    accepted: Batch
    refused: Batch
    counts: Counts
    measures: Measures
    origins: tuple[Position, ...] | None = None
    source: Batch | None = None
    """The rows as they were read: what earlier runs have refused of them is read again."""


@dataclass(frozen=True)
class Committed:
    """What it took to commit a batch: how often it was tried again, and what merging its rows did to the table."""

    retries: int = 0
    merged: Merged | None = None
