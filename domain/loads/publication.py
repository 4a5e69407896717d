"""What a finished read set is judged by when it is published, and what its lane keeps of it; the same in
every store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.errors import ConflictError, FencedError, QualityRejectedError
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import ReadSet
from domain.quality.measures import merge_stats
from domain.quality.rules import Judgement, Measures, Reference


@dataclass(frozen=True)
class Finished:
    """A read set whose streams have all come to their end; `stats` are summed over them."""

    read_set: ReadSet
    lane: LaneState
    stats: Mapping[str, Any]

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
        stats: dict[str, Any] = {}
        for stream in lane.streams:
            stats = merge_stats(stats, stream.stats)
        return cls(read_set, lane, stats)

    def measures(self, duplicates: Mapping[tuple[str, ...], int], dangling: Mapping[Reference, int]) -> Measures:
        """What it is judged by, with what the store counted in the stage."""
        return Measures(
            counts=self.lane.counts,
            violations=self.stats.get("violations", {}),
            nulls=self.stats.get("nulls", {}),
            duplicates=duplicates,
            expected={int(index): count for index, count in (self.read_set.expected or {}).items()},
            dangling=dangling,
            newest=self.stats.get("newest", {}),
            profiles=self.stats.get("profiles", {}),
            baseline=self.read_set.baseline or {},
        )

    def kept(self, judgement: Judgement, stats: Mapping[str, Any]) -> dict[str, Any]:
        """What the lane keeps of it once it is published."""
        end = self.read_set.plan.end
        return {
            "fingerprint": self.read_set.fingerprint,
            "verdicts": [vars(result) for result in judgement.results],
            "stats": {name: value for name, value in stats.items() if name != "profiles"},
            "profiles": {**(self.read_set.baseline or {}), **stats.get("profiles", {})},
            "end": end.to_json() if end is not None else None,
        }

    @property
    def watermark(self) -> str | None:
        """Where the lane's next read begins."""
        return self.read_set.plan.hi if self.read_set.plan.hi is not None else self.lane.watermark


def refuse_rejected(judgement: Judgement) -> None:
    """Refuse to publish what a rule forbids.

    Raises:
        QualityRejectedError: one does.
    """
    if judgement.rejected:
        first = judgement.rejected[0]
        raise QualityRejectedError(
            f"The rule {first.rule} failed ({first.violations} violations, value {first.value}); "
            "nothing of the run was published."
        )
