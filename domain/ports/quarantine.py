"""The part of a data store's port that hands out what was refused."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from domain.loads.checkpoint import Position
from domain.loads.quarantine import Refusals, RefusedRow


class IRefusedRows(ABC):
    """Rows that were refused, beside the tables they were meant for; the clauses are `IDataStore`'s."""

    @abstractmethod
    async def refused_rows(
        self, refusals: Refusals, *, after: Position | None, limit: int, most_bytes: int | None = None
    ) -> Sequence[RefusedRow]:
        """List refused rows in the order of their places, strictly after one of them; none where there is no such
        table.

        One at least, then no more than have so many bytes together.
        """

    @abstractmethod
    async def refused_places(self, refusals: Refusals, *, after: Position | None, limit: int) -> Sequence[Position]:
        """List the places of the same rows, of which nothing else is read: they may be large."""

    @abstractmethod
    async def latest_read_set(self, refusals: Refusals) -> str | None:
        """The greatest id of a read set that refused rows of the pipeline, whatever became of them; None where none
        did.
        """

    @abstractmethod
    async def refused_shapes(self, refusals: Refusals) -> Sequence[str]:
        """List the different `columns` of refused rows."""
