"""What a lane keeps at its destination beside counts and position, from opening a read set to the next opening."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.loads.horizon import ReadEnd
from domain.loads.read_set import ReadSet
from domain.quality.measures import Measures
from domain.quality.profile import Profile
from domain.rule_results import RuleResult


@dataclass(frozen=True)
class LandingNote:
    """Which table a read set was opened on, as its store tells it from another that takes its place, and the runs that
    have loaded rows of the read set, which may have changed hands; None where an earlier version noted none.
    """

    table: str | None = None
    runs: tuple[str, ...] | None = None

    def with_run(self, run_id: str) -> "LandingNote":
        """The same once another run loads; where not every run is known, none is added."""
        if self.runs is None or run_id in self.runs:
            return self
        return LandingNote(self.table, (*self.runs, run_id))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, which stand among the memory's own."""
        return {"landing": self.table, **({"landed_by": list(self.runs)} if self.runs is not None else {})}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LandingNote | None":
        """Rebuild what `to_json` gave, in this version or another; None where nothing was noted."""
        runs = value.get("landed_by")
        if runs is None and "landing" not in value:
            return None
        return cls(value.get("landing"), tuple(runs) if runs is not None else None)


@dataclass(frozen=True)
class LaneMemory:
    """What a lane remembers of its latest read set. While that is open: the read set itself, whether its table was
    `made` for it, and where its rows land; once it is published: what the rules said, what was measured, the profiles,
    and why the read ended where it did. `fingerprint` is that of the source, cursor, key and destination, None where
    nothing is remembered, and `before` what it was when the read set was opened: that which the watermark is of.
    """

    fingerprint: str | None = None
    read_set: ReadSet | None = None
    made_table: bool = False
    landing: LandingNote | None = None
    verdicts: tuple[RuleResult, ...] = ()
    measures: Measures = field(default_factory=Measures)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    end: ReadEnd | None = None
    before: str | None = None

    @property
    def of_watermark(self) -> str | None:
        """The fingerprint of what the watermark is of; None where nobody says."""
        if self.read_set is None:
            return self.fingerprint
        # A version that did not note `before` opened nothing beside the watermark of another source but a full refresh.
        is_of_earlier_version = self.read_set.full_refresh is None
        return self.fingerprint if self.before is None and is_of_earlier_version else self.before

    @property
    def stage(self) -> str | None:
        """The stage of the read set that is open."""
        return self.read_set.shadow if self.read_set is not None else None

    @property
    def latest_end(self) -> ReadEnd | None:
        """Why the latest read by a cursor ends where it does, published or not."""
        return (self.read_set.plan.end if self.read_set is not None else None) or self.end

    @property
    def latest_profiles(self) -> Mapping[str, Profile] | None:
        """The profiles of what is published, also while a read set is open."""
        return self.profiles or (self.read_set.baseline if self.read_set is not None else None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        if self.read_set is not None:
            return {
                "read_set": self.read_set.to_json(),
                "fingerprint": self.fingerprint,
                **({"before": self.before} if self.before is not None else {}),
                **({"made_table": True} if self.made_table else {}),
                **(self.landing.to_json() if self.landing is not None else {}),
            }
        if self.fingerprint is None:
            return {}
        return {
            "fingerprint": self.fingerprint,
            "verdicts": [result.to_json() for result in self.verdicts],
            "stats": self.measures.to_json(),
            "profiles": {name: profile.to_json() for name, profile in self.profiles.items()},
            "end": self.end.to_json() if self.end is not None else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LaneMemory":
        """Rebuild what `to_json` gave, in this version or another."""
        read_set, end = value.get("read_set"), value.get("end")
        return cls(
            fingerprint=value.get("fingerprint"),
            read_set=ReadSet.from_json(read_set) if read_set else None,
            before=value.get("before"),
            made_table=bool(value.get("made_table")),
            landing=LandingNote.from_json(value),
            verdicts=tuple(RuleResult.from_json(verdict) for verdict in value.get("verdicts") or ()),
            measures=Measures.from_json(value.get("stats") or {}),
            profiles={name: Profile.from_json(found) for name, found in (value.get("profiles") or {}).items()},
            end=ReadEnd.from_json(end) if end else None,
        )
