"""What a destination remembers about each stream, in the transaction of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from domain.loads.horizon import ReadEnd
from domain.quality.measures import Counts, merge_stats

HEAD = "head"

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
    state: str = "loading"
    counts: Counts = field(default_factory=Counts)
    stats: Mapping[str, Any] = field(default_factory=dict)
    format: int = POSITION_FORMAT

    @property
    def is_done(self) -> bool:
        """A done stream has read up to its end."""
        return self.state == "done"


@dataclass(frozen=True)
class LaneState:
    """What the take-over read: the lane's watermark, its latest read set, and that read set's streams.

    `stats` of the head hold the stored read set (`read_set`), the spec's `fingerprint` and, once published, the
    `verdicts` of the rules and the `end` of the read. `generation` grows with every opening, publication and reset.
    `token` is the writer's: each take-over puts a new one beside its fence, so that two attempts under one fence are
    told apart.
    """

    state: str
    fence: int
    watermark: str | None = None
    read_set_id: str | None = None
    stats: Mapping[str, Any] = field(default_factory=dict)
    streams: tuple[StreamState, ...] = ()
    generation: int = 0
    token: str | None = None

    @property
    def is_loading(self) -> bool:
        """True while a read set is open and not published."""
        return self.state == "loading"

    @property
    def end(self) -> ReadEnd | None:
        """Why the lane's latest read by a cursor ends where it does."""
        found = ((self.stats.get("read_set") or {}).get("plan") or {}).get("end") or self.stats.get("end")
        return ReadEnd.from_json(found) if found else None

    @property
    def profiles(self) -> Mapping[str, Any] | None:
        """The profiles of what is published, also while a read set is open."""
        found = self.stats.get("profiles") or (self.stats.get("read_set") or {}).get("baseline")
        return found if found is None else dict(found)

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
    became of single rows leaves `is_counted` False.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    repeated: int = 0
    is_counted: bool = True

    @property
    def counts(self) -> Counts:
        """What it adds to the counts of the rows."""
        return Counts(deduplicated=self.repeated)

    @property
    def stats(self) -> Mapping[str, Any]:
        """What it adds to the measures of the rows."""
        done = {"inserted": self.inserted, "updated": self.updated, "deleted": self.deleted}
        return {"merged": done} if self.is_counted else {}


@dataclass(frozen=True)
class CheckpointUpdate:
    """What one batch adds to its stream's row; `seq` is the new one, committed only if the old is `seq - 1`."""

    seq: int
    position: Position | None
    counts: Counts
    stats: Mapping[str, Any]
    is_last: bool

    def with_merged(self, merged: Merged) -> "CheckpointUpdate":
        """The same, with what merging the batch did."""
        return replace(self, counts=self.counts + merged.counts, stats=merge_stats(self.stats, merged.stats))
