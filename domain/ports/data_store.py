"""The port to the users' tables: planned reads, fenced writes, atomic publication."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from domain.loads.checkpoint import CheckpointUpdate, LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.read_set import ReadSet, SourcePlan, Stream
from domain.loads.way import Passage, Wire
from domain.pipelines.spec import DeleteMissing, Mode, SourceSpec
from domain.ports.batches import Batch as Batch
from domain.ports.batches import Committed as Committed
from domain.ports.batches import Conversion as Conversion
from domain.ports.batches import Conversions as Conversions
from domain.ports.batches import EncodedRows as EncodedRows
from domain.ports.batches import JudgedBatch as JudgedBatch
from domain.ports.batches import SourceBatch as SourceBatch
from domain.ports.batches import TextRows as TextRows
from domain.ports.batches import are_large as are_large
from domain.ports.quarantine import IRefusedRows
from domain.ports.reading import IReader as IReader
from domain.quality.measures import Counts
from domain.quality.rules import Judgement, Measures, StagedChecks
from domain.runs.lane import Lane, LaneOwner
from domain.stores.table import Column, TableName, TableSchema

BATCH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class StoreHealth:
    """Whether a store works; `step` names the first one that failed: name, network, tls, sign_in, query, write."""

    is_healthy: bool
    step: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Target:
    """The destination of one run. `shadow` names the staging table, None when batches land in the table itself."""

    table: TableName
    mode: Mode
    shadow: str | None
    columns: tuple[Column, ...]
    run_id: str
    metadata_columns: bool
    replaces: bool = False
    """True when publishing puts the shadow in the place of the table (`mode: replace`, full refresh)."""
    key: tuple[str, ...] = ()
    """The columns that `merge` goes by."""
    deletes: bool = False
    """True when rows carry `_headrace_deleted`, which says that their key is gone."""
    delete_missing: DeleteMissing | None = None
    max_deleted_share: float = 1.0
    discarded: tuple[str, ...] = ()
    """Columns of the rows that the table does not have and that are left out."""
    newest_by: str | None = None
    """A merged row is left as it is where this column of it is as great already: what is replayed is older."""
    source_key: tuple[str, ...] = ()
    """What a row of the source is known by, where a run that reads it again supersedes what earlier runs
    refused of it.
    """
    rebuilds: bool = False
    """The table makes way for a new one with the types of the columns named."""

    @property
    def merges(self) -> bool:
        """Rows land by their key."""
        return self.mode is Mode.MERGE


@dataclass(frozen=True)
class Publication:
    """What a publish did: the verdicts and the sums over all streams."""

    judgement: Judgement
    counts: Counts
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamSelection:
    """The rows of a stream strictly after a position, and how they pass."""

    source: SourceSpec
    plan: SourcePlan
    stream: Stream
    after: Position | None
    passage: Passage


def passage_of(target: Target, seen: tuple[str, ...] = ()) -> Passage:
    """What passes undecoded into a target: its columns, and the metadata that the landing table has."""
    return Passage(
        columns=tuple(column.name for column in target.columns),
        run_id=target.run_id if target.metadata_columns else None,
        has_loaded_at=target.metadata_columns and target.shadow is None,
        seen=seen,
    )


Judge = Callable[[Measures], Judgement]


class IWriter(ABC):
    """Commits batches of one stream under one fence and the token of one take-over."""

    @abstractmethod
    async def commit(self, batch: JudgedBatch, checkpoint: CheckpointUpdate) -> Committed:
        """Make rows, quarantine and checkpoint durable in one transaction.

        What merging the rows did is added to the stored checkpoint; the caller adds it to the next one.

        Raises:
            FencedError: fence or token is stale, the read set another one, or `seq` not the next; nothing changed.
            SchemaMismatchError: the rows do not fit the table's types; nothing changed.
        """

    async def commit_encoded(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> int:
        """As `commit`, for undecoded rows; only where the store's `landing_wire` gave their format.

        Raises:
            SchemaMismatchError: a column would not store them unchanged; nothing changed.
        """
        raise NotImplementedError

    async def commit_texts(
        self, rows: TextRows, conversions: Conversions, landed: int, checkpoint_of: Callable[[], CheckpointUpdate]
    ) -> None:
        """As `commit`, for text that the store converts while it writes it, behind `landed` rows of the stream.

        `checkpoint_of` is asked once all is written.

        Raises:
            ConversionError: a value does not convert; nothing changed.
        """
        raise NotImplementedError

    async def commit_selection(
        self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]
    ) -> int:
        """Insert what a stream of the same store selects, and the checkpoint that ends it, in one transaction.

        `checkpoint_of` makes the checkpoint from the number of rows. Return how often it was tried again. Only where
        `may_run_inside` holds.

        Raises:
            FencedError: as `commit`.
        """
        raise NotImplementedError


class IOwner(ABC):
    """The one owner of a lane at the destination; every method is one transaction under its fence."""

    @abstractmethod
    async def take_over(self) -> LaneState:
        """Put the fence and a fresh token on every row of the lane and read where it stands.

        Raises:
            FencedError: the lane carries a higher fence, or this one with a token that is not the caller's; the error
                names it, and only a fence above it will do.
        """

    @abstractmethod
    async def open_read_set(self, read_set: ReadSet, target: Target) -> LaneState:
        """Create what the target needs and put every stream of the read set at its beginning, staging emptied; return
        how the lane then stands.

        Raises:
            ConflictError: another pipeline owns the table (`destination.owned`).
            SchemaMismatchError: the table lacks a column or cannot take its type.
        """

    @abstractmethod
    async def fit(self, target: Target) -> None:
        """Give the table, and an open stage, the target's columns that they do not have (D5).

        Raises:
            SchemaMismatchError: a column cannot be added.
        """

    @abstractmethod
    async def publish(self, read_set: ReadSet, target: Target, checks: StagedChecks, judge: Judge) -> Publication:
        """Judge the finished read set and make it the lane's published state, with the watermark at its `hi`.

        Raises:
            QualityRejectedError: a verdict forbids it; nothing changed.
        """

    @abstractmethod
    async def seal(self) -> None:
        """Stop every writer of the open read set for good; the next take-over opens it again. What the read set has
        made and nothing landed in is dropped, if that is to be had.
        """

    @abstractmethod
    async def reset(self, watermark: str | None) -> None:
        """Forget the open read set and its staging, and put the watermark where it is told."""

    @abstractmethod
    async def release(self) -> None:
        """Forget the lane and the pipeline's hold on the table; rows stay."""

    @abstractmethod
    async def discard(self) -> None:
        """Drop the table of a pipeline that was only a rehearsal, and everything remembered of it.

        Raises:
            ConflictError: another pipeline writes the table (`destination.owned`).
        """


class IDataStore(IRefusedRows):
    """Tabular data of the users, read and written in batches.

    1. Values travel as parameters, never inside the query text.
    2. Replaying a batch with its checkpoint leaves one copy.
    3. A stale fence changes nothing and raises `FencedError`.
    4. A failed commit leaves no visible rows.
    5. Trouble on the way raises `StoreUnavailableError`, which is retryable; a store that turns us away until somebody
       changes something raises `StoreRefusedError`, which is not. No message holds a value.
    6. A take-over raises the fence on every row of its lane and returns what was committed. A fence that is not above
        the lane's is refused, but for the claim that has put it there and shows the token of that take-over.
    7. Opening a read set puts its streams at the beginning, with an empty staging table.
    8. Publishing is all or nothing: rows, verdict, watermark, and the table itself, which a run with a staging table
        makes only then; it happens once.
    9. After a seal no writer commits, whatever its fence, until the next take-over; a table that the read set made and
       in which nothing landed is gone.
    10. A reader yields rows in order, strictly after the position it is given; what was committed plus what is read
        after it is the whole. A position is text that the store reads back to the same value, of every type that has an
        order; others are refused by name.
    11. A table that one pipeline replaces takes no other writer.
    12. A query that is not one read-only statement is refused and changes nothing.
    13. Planning refuses cursors that are NULL or where no read ever gets, and takes no row at or above `hi`.
    14. A batch whose types do not fit the table is refused whole; no value is ever stored changed.
    15. A table is described with its columns, types of our names, and primary key; an absent one is None.
    16. Closing releases everything, also when opening failed; a closed store can be opened again.
    17. The streams of a partitioned read cover every row once, NULLs of the partition column in the first.
    18. Readers of one shared snapshot, and batches of one reader, see the rows of one moment whatever is written,
        emptied or replaced meanwhile; nobody who waits to do so makes them wait. A store that cannot share one hands
        out None.
    19. A cancelled call interrupts what the store is doing and leaves nothing half-written.
    20. Discarding a lane drops the table that its pipeline alone has written, with everything remembered of it; a table
        that another pipeline writes too is left as it is.
    21. A merge leaves, of all rows read, the last of each key, as the store holds keys equal; a row that says its key
        is gone deletes it. It tells how many rows it inserted, updated and deleted, in the checkpoint too.
    22. Keys that a full read lacks are deleted or marked up to a share, all of them or none; refused rows lack nothing.
    23. Columns that a table lacks are added before rows come, once, also to an open stage.
    24. A lookback begins a read before the watermark and never moves it back.
    25. Rows that pass undecoded, or within the database, land as they would have landed decoded, under the same fence.
    26. A row larger than a batch may be is refused by name, and nothing of its batch lands.
    27. Refused rows are listed in order, strictly after a place; only a published run's may be replayed. Once a run
        that has read such a row again by its key is published, it is superseded.
    28. What a replay lands is marked in the same transaction, once; what is refused again stays as it was.
    29. Of two attempts under one fence only the later one writes: whatever it does names the token of its take-over.
    30. A read by a cursor ends just above the greatest value seen, and never above what may still commit; what the
        source cannot tell of that is said.
    31. A table that is replaced keeps what it has besides its rows, or is refused; rows of others that refer to it are
        reached by nothing but the deletion of their own.
    32. A key that the store does not prove is no less exact: rows that share their place in the order come in one
        batch, and with NULL in it the read has no order, so that it is staged.
    33. Nothing lands, nor is published, where others have emptied or exchanged the table since rows of the read set
        landed in it (`destination.changed`); a table that is only written anew, as by VACUUM FULL, is the same one.
    """

    batch_rows = 50_000
    """Rows per batch that suit the store as a destination."""

    @abstractmethod
    async def open(self) -> None:
        """Connect. The caller closes, also when this raises."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; harmless when nothing is open."""

    @abstractmethod
    async def health_check(self) -> StoreHealth:
        """Try the store and say which step failed; never raises."""

    @abstractmethod
    async def tables(self) -> Sequence[TableName]:
        """List the tables that can be read, ordered by name, without Headrace's own."""

    @abstractmethod
    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        """Describe a table, or None if there is none; what would be lost with it only on request, which
        takes longer.
        """

    @abstractmethod
    def read(self, source: SourceSpec, *, batch_rows: int) -> AsyncGenerator[Batch, None]:
        """Yield the rows of a source without a plan; the caller closes the generator when it stops early."""

    @abstractmethod
    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        """Append batches of one schema in one transaction, creating the table if absent; return the rows.

        Not fenced: for set-up and tests. Runs write through `writer`.
        """

    @abstractmethod
    async def plan(
        self,
        source: SourceSpec,
        *,
        lo: str | None,
        limit: int | None,
        before: ReadEnd | None = None,
        waits: bool = True,
    ) -> SourcePlan:
        """Fix what a run will read: columns, order, bounds, streams.

        A read by a cursor ends below everything that may still commit; `before` is where the lane's last one ended and
        why. With `waits` the store may wait some seconds for transactions that have only just begun.

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
    async def lane_state(self, lane: Lane, table: TableName) -> LaneState:
        """Read where a lane stands without taking it over; an unknown lane is idle with fence 0."""

    @abstractmethod
    def owner(
        self, lane: Lane, table: TableName, fence: int, *, token: str | None = None
    ) -> AbstractAsyncContextManager[IOwner]:
        """Act on a lane at the destination under a fence, with one connection and one thread.

        `token` is the one that the latest take-over of the same claim was given, None before the first.
        """

    @abstractmethod
    def snapshot(
        self, source: SourceSpec, *, readers: int = 1, undecoded: bool = False, by: LaneOwner | None = None
    ) -> AbstractAsyncContextManager[str | None]:
        """Hold a snapshot of a source that readers, so many at a time, can share by its name while the block lasts.

        `undecoded` says that rows will pass undecoded, `by` for whom they are read. None where the store cannot show
        all of the source at one moment.
        """

    def spell(self, logical: str) -> str | None:
        """Give the store's own name of one of our types, None where it has none and columns of it are refused."""
        return None

    async def wire(self, source: SourceSpec) -> Wire | None:
        """Say how the rows of a source travel undecoded, or None where they cannot."""
        return None

    async def landing_wire(self, table: TableName, columns: Sequence[Column]) -> Wire | None:
        """Say how undecoded rows land in a table, which would be created with `columns` if it is absent."""
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

    @abstractmethod
    def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AbstractAsyncContextManager[IWriter]:
        """Write a stream with one connection and one thread."""
