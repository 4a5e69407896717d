"""From opening a read set to publishing it: who may, what it is judged by, and how its lane stands afterwards; the same
in every store.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from domain.errors import ConflictError, FencedError, QualityRejectedError
from domain.loads.checkpoint import IDLE, LOADING, SEALED, LaneState, StreamState
from domain.loads.memory import LandingNote, LaneMemory
from domain.loads.read_set import ReadSet
from domain.quality.measures import Measures
from domain.quality.rules import Evidence, Judgement, Reference
from domain.runs.lane import Lane
from domain.stores.table import TableName


@dataclass(frozen=True)
class TableWriter:
    """A pipeline that writes a table, and whether it puts another in its place."""

    organization: str
    pipeline: str
    replaces: bool

    def is_of(self, lane: Lane) -> bool:
        """Say whether a lane is one of the pipeline's."""
        return (self.organization, self.pipeline) == (lane.organization, lane.pipeline)


def refuse_second_writer(table: TableName, wanted: TableWriter, writers: Iterable[TableWriter]) -> None:
    """Refuse to open a load into a table that has these writers.

    Raises:
        ConflictError: another pipeline writes it, and one of them replaces it (`destination.owned`).
    """
    for writer in writers:
        is_other = (writer.organization, writer.pipeline) != (wanted.organization, wanted.pipeline)
        if is_other and (writer.replaces or wanted.replaces):
            raise ConflictError(
                f"The table {table} is written by another pipeline ({writer.pipeline}), and a table that is replaced "
                "has one writer only.",
                code="destination.owned",
            )


def refuse_discard(table: TableName, lane: Lane, writers: Iterable[TableWriter]) -> None:
    """Refuse to drop a table that has these writers.

    Raises:
        ConflictError: another pipeline is one of them (`destination.owned`).
    """
    if not all(writer.is_of(lane) for writer in writers):
        raise ConflictError(f"The table {table} has another writer.", code="destination.owned")


def taken_over(lane: LaneState, fence: int, token: str) -> LaneState:
    """How a lane stands once a claim has taken it over: sealed streams are open again."""
    streams = tuple(replace(s, state=LOADING) if s.state == SEALED else s for s in lane.streams)
    return replace(lane, fence=fence, token=token, streams=streams)


def opened(lane: LaneState, read_set: ReadSet, *, makes_table: bool, noted: LandingNote | None) -> LaneState:
    """How a lane stands once a read set is opened, every stream at its beginning.

    `makes_table` says that the table is made for it: not with a stage, which becomes the table only when it is
    published. `noted` is what the store notes of where rows will land.
    """
    is_made = makes_table or lane.memory.made_table
    return replace(
        lane,
        state=LOADING,
        read_set_id=read_set.id,
        memory=LaneMemory(read_set.fingerprint, read_set, is_made, noted, before=lane.memory.of_watermark),
        streams=tuple(StreamState(stream.name) for stream in read_set.plan.streams),
        generation=lane.generation + 1,
    )


def sealed(lane: LaneState) -> LaneState:
    """How a lane stands once no writer of it may commit until the next take-over."""
    return replace(lane, streams=tuple(replace(s, state=SEALED) if s.state == LOADING else s for s in lane.streams))


def forgotten(lane: LaneState, watermark: str | None) -> LaneState:
    """How a lane stands that has forgotten its read set; the fence stays, so that late writers are still refused."""
    return LaneState(IDLE, lane.fence, watermark, generation=lane.generation + 1, token=lane.token)


@dataclass(frozen=True)
class Leftovers:
    """What an open read set would leave: a stage from which nobody can go on, and a table that it made itself."""

    stage: str | None = None
    has_made_table: bool = False


def leftovers(state: LaneState) -> Leftovers:
    """What is left of a read set that is not published. A stage with committed batches in order is no leftover."""
    memory = state.memory
    if not state.is_loading or memory.read_set is None:
        return Leftovers()
    is_of_use = state.seq > 0 and memory.read_set.plan.ordered
    return Leftovers(None if is_of_use else memory.stage, memory.made_table and state.seq == 0)


@dataclass(frozen=True)
class Finished:
    """A read set whose streams have all come to their end; `measures` are summed over them."""

    read_set: ReadSet
    lane: LaneState
    measures: Measures

    @classmethod
    def of(cls, read_set: ReadSet, lane: LaneState) -> "Finished":
        """Look whether a read set may be published.

        Raises:
            FencedError: it is not the open one.
            ConflictError: a stream has not come to its end (`run.unfinished`).
        """
        if lane.read_set_id != read_set.id or not lane.is_loading:
            raise FencedError(f"The read set {read_set.id} is not open any more.")
        if not all(stream.is_done for stream in lane.streams):
            raise ConflictError("The read set is not finished.", code="run.unfinished")
        return cls(read_set, lane, sum((stream.measures for stream in lane.streams), Measures()))

    def evidence(self, duplicates: Mapping[tuple[str, ...], int], dangling: Mapping[Reference, int]) -> Evidence:
        """What it is judged by, with what the store counted in the stage."""
        return Evidence(
            counts=self.lane.counts,
            violations=self.measures.violations,
            nulls=self.measures.nulls,
            duplicates=duplicates,
            expected={int(index): count for index, count in (self.read_set.expected or {}).items()},
            dangling=dangling,
            newest=self.measures.newest,
            profiles=self.measures.profiles,
            baseline=self.read_set.baseline or {},
        )

    @property
    def has_landed(self) -> bool:
        """Whether there are rows of it that others may have taken away."""
        return self.lane.counts.produced > 0

    @property
    def knows_what_is_missing(self) -> bool:
        """Whether keys that it has not are missing in the source: rows that were refused are there all the same."""
        return not self.lane.counts.quarantined + self.lane.counts.failed

    def published(self, judgement: Judgement, measures: Measures) -> LaneState:
        """How the lane stands once it is published, with what putting the rows in place added to `measures`."""
        plan, profiles = self.read_set.plan, {**(self.read_set.baseline or {}), **measures.profiles}
        kept = LaneMemory(
            fingerprint=self.read_set.fingerprint,
            verdicts=judgement.results,
            measures=replace(measures, profiles={}),
            profiles=profiles,
            end=plan.end,
        )
        return replace(
            self.lane,
            state=IDLE,
            watermark=plan.hi if plan.hi is not None else self.lane.watermark,
            memory=kept,
            generation=self.lane.generation + 1,
        )


def refuse_rejected(judgement: Judgement) -> None:
    """Refuse to publish what a rule forbids.

    Raises:
        QualityRejectedError: one does.
    """
    if judgement.rejected:
        first = judgement.rejected[0]
        error = QualityRejectedError(
            f"The rule {first.rule} failed ({first.violations} violations, value {first.value}); "
            "nothing of the run was published."
        )
        error.results = judgement.results
        raise error


MISSING_UNKNOWN = "skipped: rows were refused, and their keys are not missing"
"""What the measures say where keys that are missing stay, since nobody knows which are."""
