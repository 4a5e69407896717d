"""The port to a store that rows come from: planned reads, shared snapshots."""

from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

from domain.loads.checkpoint import Position
from domain.loads.horizon import ReadEnd
from domain.loads.read_set import BATCH_BYTES as BATCH_BYTES
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import Wire
from domain.pipelines.spec import SourceSpec
from domain.ports.batches import Batch
from domain.ports.reading import IReader
from domain.ports.store import IStore
from domain.runs.lane import LaneOwner


class ISource(IStore):
    """A store that can be read from; the clauses are `IDataStore`'s."""

    @abstractmethod
    def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        """Yield the rows of a source without a plan; the caller closes the generator when it stops early."""

    @abstractmethod
    async def plan(
        self,
        source: SourceSpec,
        *,
        lo: str | None,
        hi: str | None = None,
        limit: int | None,
        before: ReadEnd | None = None,
        waits: bool = True,
    ) -> SourcePlan:
        """Fix what a run will read: columns, order, bounds, streams.

        A read by a cursor ends below everything that may still commit, and below `hi` if that is lower; `before` is
        where the lane's last one ended and why. With `waits` the store may wait some seconds for transactions that have
        only just begun.

        Raises:
            NotFoundError: no such table or file.
            InvalidInputError: NULL cursors, unknown columns, a type that cannot be a cursor; with a strict cursor a
                source that cannot tell what may still commit (`cursor.unknown`).
        """

    @abstractmethod
    async def count(self, source: SourceSpec, plan: SourcePlan) -> int:
        """Count the rows of a planned read."""

    async def check_place(self, source: SourceSpec, plan: SourcePlan, stream: Stream, place: Position) -> None:
        """Refuse to go on after a place that an earlier version wrote, unless it says exactly what was read before it.

        Raises:
            ConflictError: it does not (`run.place_unclear`).
        """

    @abstractmethod
    def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AbstractAsyncContextManager[str | None]:
        """Hold a snapshot of a source that readers, so many at a time, can share by its name while the block lasts.

        `undecoded` says that rows will pass undecoded, `by` for whom they are read. None where the store cannot show
        all of the source at one moment.
        """

    async def wire(self, source: SourceSpec) -> Wire | None:
        """Say how the rows of a source travel undecoded, or None where they cannot."""
        return None

    async def may_run_inside(self, source: SourceSpec) -> bool:
        """Say whether the source may be part of a writing statement: it reads plain tables and calls
        nothing unknown.
        """
        return False

    @abstractmethod
    def reader(
        self,
        source: SourceSpec,
        plan: SourcePlan,
        stream: Stream,
        *,
        batch_rows: int,
        batch_bytes: int = BATCH_BYTES,
        snapshot: str | None = None,
        by: LaneOwner | None = None,
    ) -> AbstractAsyncContextManager[IReader]:
        """Read a stream with one connection and one thread, in a shared snapshot or in one of its own."""
