"""What a destination remembers about each stream, in the transaction of the rows."""

from dataclasses import dataclass, field, replace

from domain.loads.memory import LaneMemory
from domain.quality.measures import Counts, Measures, RowChanges

HEAD = "head"

IDLE, LOADING, DONE, SEALED = "idle", "loading", "done", "sealed"
"""States: of a lane idle or loading; of a stream loading, done, or sealed until the next take-over."""

Position = tuple[str, ...]
"""Values of (cursor, key) of the last committed row as text, or (file index, rows) for files."""

POSITION_FORMAT = 2
"""How positions are written now, beside each: 1 by way of Python's values and between rows that share their place, 2 as
the store's own text and behind all of them. Versions that had no such number wrote 1.
"""


@dataclass(frozen=True)
class StreamState:
    """One stream's row of the checkpoint table."""

    stream: str
    seq: int = 0
    position: Position | None = None
    state: str = LOADING
    counts: Counts = field(default_factory=Counts)
    measures: Measures = field(default_factory=Measures)
    format: int = POSITION_FORMAT

    @property
    def is_done(self) -> bool:
        """A done stream has read up to its end."""
        return self.state == DONE


@dataclass(frozen=True)
class LaneState:
    """What the take-over read: the lane's watermark, its latest read set, and that read set's streams.

    `generation` grows with every opening, publication and reset.
    `token` is the writer's: each take-over puts a new one beside its fence, so that two attempts under one fence are
    told apart.
    """

    state: str
    fence: int
    watermark: str | None = None
    read_set_id: str | None = None
    memory: LaneMemory = field(default_factory=LaneMemory)
    streams: tuple[StreamState, ...] = ()
    generation: int = 0
    token: str | None = None

    @property
    def is_loading(self) -> bool:
        """True while a read set is open and not published."""
        return self.state == LOADING

    @property
    def seq(self) -> int:
        """Batches committed in the latest read set: grows with progress, so it tells a poisoned run."""
        return sum(stream.seq for stream in self.streams)

    @property
    def counts(self) -> Counts:
        """Counts of the latest read set over all streams."""
        return sum((stream.counts for stream in self.streams), Counts())


@dataclass(frozen=True)
class Merged:
    """What a merge did to its table; rows that are only marked as missing count as deleted.

    `repeated` of its rows were not the last of their key, as the store holds keys equal. A store that cannot tell what
    became of single rows leaves `is_counted` False. `left` is what the counts change by where a replay leaves rows in
    quarantine, as they may be older than what is there, or leaves out what others have settled meanwhile.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    repeated: int = 0
    is_counted: bool = True
    left: Counts = field(default_factory=Counts)

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.repeated + other.repeated,
            self.is_counted and other.is_counted,
            self.left + other.left,
        )

    @classmethod
    def leaving(cls, sources: int, rows: int) -> "Merged":
        """What becomes of rows that are left in quarantine, and of how many source rows they were made."""
        return cls(left=Counts(used=-sources, produced=-rows, quarantined=sources))

    @property
    def counts(self) -> Counts:
        """What it adds to the counts of the rows."""
        return Counts(deduplicated=self.repeated) + self.left

    @property
    def measures(self) -> Measures:
        """What it adds to the measures of the rows."""
        done = RowChanges(self.inserted, self.updated, self.deleted)
        return Measures(merged=done if self.is_counted else None, left=self.left.quarantined)


@dataclass(frozen=True)
class CheckpointUpdate:
    """What one batch adds to its stream's row; `seq` is the new one, committed only if the old is `seq - 1`."""

    seq: int
    position: Position | None
    counts: Counts
    measures: Measures
    is_last: bool

    def moved(self, stream: str) -> StreamState:
        """How its stream stands once it is committed."""
        state = DONE if self.is_last else LOADING
        return StreamState(stream, self.seq, self.position, state, self.counts, self.measures)

    def with_merged(self, merged: Merged) -> "CheckpointUpdate":
        """The same, with what merging the batch did."""
        return replace(self, counts=self.counts + merged.counts, measures=self.measures + merged.measures)
