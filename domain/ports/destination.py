"""The port to a store that rows go to: fenced writes, atomic publication."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from domain.loads.checkpoint import CheckpointUpdate, LaneState, Position
from domain.loads.read_set import ReadSet, SourcePlan, Stream
from domain.loads.way import Passage, Wire
from domain.pipelines.spec import DeleteMissing, Mode, SourceSpec
from domain.ports.batches import Batch, Committed, Conversions, EncodedRows, JudgedBatch, TextRows
from domain.ports.store import IStore
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Evidence, Judgement, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName


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
    measures: Measures = field(default_factory=Measures)


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


Judge = Callable[[Evidence], Judgement]


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


class IPassingWriter(IWriter):
    """Also commits undecoded rows, where the store's `landing_wire` gave their format."""

    @abstractmethod
    async def commit_encoded(self, rows: EncodedRows, checkpoint: CheckpointUpdate) -> int:
        """As `commit`, for undecoded rows.

        Raises:
            SchemaMismatchError: a column would not store them unchanged; nothing changed.
        """


class ITextWriter(IWriter):
    """Also commits text that the store converts while it writes it."""

    @abstractmethod
    async def commit_texts(
        self, rows: TextRows, conversions: Conversions, landed: int, checkpoint_of: Callable[[], CheckpointUpdate]
    ) -> None:
        """As `commit`, for text that the store converts while it writes it, behind `landed` rows of the stream.

        `checkpoint_of` is asked once all is written.

        Raises:
            ConversionError: a value does not convert; nothing changed.
        """


class ISelectingWriter(IWriter):
    """Also commits what the store itself selects, where `may_run_inside` holds."""

    @abstractmethod
    async def commit_selection(
        self, selection: StreamSelection, checkpoint_of: Callable[[int], CheckpointUpdate]
    ) -> int:
        """Insert what a stream of the same store selects, and the checkpoint that ends it, in one transaction.

        `checkpoint_of` makes the checkpoint from the number of rows. Return how often it was tried again.

        Raises:
            FencedError: as `commit`.
        """


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
        """Stop every writer of the open read set until the next take-over, which opens it again. What the read set has
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


class IDestination(IStore):
    """A store that can be written to; the clauses are `IDataStore`'s."""

    batch_rows = 50_000
    """Rows per batch that suit the store as a destination."""

    @abstractmethod
    async def write(self, table: TableName, batches: Sequence[Batch]) -> int:
        """Append batches of one schema in one transaction, creating the table if absent; return the rows.

        Not fenced: for set-up and tests. Runs write through `writer`.
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

    def spell(self, logical: str) -> str | None:
        """Give the store's own name of one of our types, None where it has none and columns of it are refused."""
        return None

    async def landing_wire(self, table: TableName, columns: Sequence[Column]) -> Wire | None:
        """Say how undecoded rows land in a table, which would be created with `columns` if it is absent."""
        return None

    @abstractmethod
    def writer(
        self, lane: Lane, target: Target, read_set_id: str, stream: str, fence: int, token: str
    ) -> AbstractAsyncContextManager[IWriter]:
        """Write a stream with one connection and one thread."""
