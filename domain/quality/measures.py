"""What is counted and measured of rows, and how the measures of parts add up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from domain.first_errors import MOST_FIRST_ERRORS, FirstError
from domain.quality.profile import Profile


@dataclass(frozen=True)
class Counts:
    """Counting over source rows: read = used + filtered + quarantined + failed (D6)."""

    read: int = 0
    used: int = 0
    filtered: int = 0
    produced: int = 0
    deduplicated: int = 0
    quarantined: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __post_init__(self) -> None:
        if self.read != self.used + self.filtered + self.quarantined + self.failed:
            raise ValueError(f"counts do not add up: {asdict(self)}")

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Counts":
        """Rebuild what `to_json` gave, in this version or another."""
        return cls(**{known.name: value[known.name] for known in fields(cls) if known.name in value})


@dataclass(frozen=True)
class RowChanges:
    """What merging rows did to their table; rows that are only marked as missing count as deleted."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: "RowChanges") -> "RowChanges":
        return RowChanges(self.inserted + other.inserted, self.updated + other.updated, self.deleted + other.deleted)

    def to_json(self) -> dict[str, int]:
        """Return plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RowChanges":
        """Rebuild what `to_json` gave."""
        return cls(**{field.name: value.get(field.name, 0) for field in fields(cls)})


@dataclass(frozen=True)
class LandedRows:
    """How many rows were written, and how many of them the table shows; None where that cannot be counted. `hides` says
    that the table may have had rows that were hidden from a merge.
    """

    written: int
    shown: int | None = None
    hides: bool = False

    def to_json(self) -> dict[str, int | bool | None]:
        """Return plain JSON values."""
        found = {"written": self.written, "shown": self.shown}
        return {**found, "hides": True} if self.hides else found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "LandedRows":
        """Rebuild what `to_json` gave."""
        return cls(value["written"], value.get("shown"), bool(value.get("hides")))


@dataclass(frozen=True)
class Measures:
    """What is measured of rows beside their counts; the measures of batches and streams add up.

    `snapshots` says which moments of the source the attempts have read. `violations` are per row rule, `nulls` and
    `unconverted` rows per column; `newest` is the greatest time of a column, in ISO form. `merged`, `delete_missing`
    and `landed` tell what became of the rows in their table, `left` how many a replay has left in quarantine although
    no rule refuses them.
    """

    snapshots: Mapping[str, int] = field(default_factory=dict)
    violations: Mapping[str, int] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    newest: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    unconverted: Mapping[str, int] = field(default_factory=dict)
    first_errors: tuple[FirstError, ...] = ()
    merged: RowChanges | None = None
    delete_missing: str | None = None
    landed: LandedRows | None = None
    left: int = 0

    def __add__(self, other: "Measures") -> "Measures":
        merged = [side.merged for side in (self, other) if side.merged is not None]
        return Measures(
            snapshots=_added(self.snapshots, other.snapshots),
            violations=_added(self.violations, other.violations),
            nulls=_added(self.nulls, other.nulls),
            newest=_newest(self.newest, other.newest),
            profiles=_profiles(self.profiles, other.profiles),
            unconverted=_added(self.unconverted, other.unconverted),
            first_errors=(self.first_errors + other.first_errors)[:MOST_FIRST_ERRORS],
            merged=sum(merged, RowChanges()) if merged else None,
            delete_missing=self.delete_missing if self.delete_missing is not None else other.delete_missing,
            landed=self.landed if self.landed is not None else other.landed,
            left=self.left + other.left,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values of what was measured."""
        found = {
            "snapshots": dict(self.snapshots),
            "violations": dict(self.violations),
            "nulls": dict(self.nulls),
            "newest": dict(self.newest),
            "profiles": {name: profile.to_json() for name, profile in self.profiles.items()},
            "unconverted": dict(self.unconverted),
            "first_errors": [error.to_json() for error in self.first_errors],
            "merged": self.merged.to_json() if self.merged is not None else None,
            "delete_missing": self.delete_missing,
            "landed": self.landed.to_json() if self.landed is not None else None,
            "left": self.left,
        }
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Measures":
        """Rebuild what `to_json` gave, in this version or another."""
        found = {name: value[name] for name in _PLAIN if value.get(name)}
        return cls(
            **found,
            profiles={name: Profile.from_json(profile) for name, profile in (value.get("profiles") or {}).items()},
            first_errors=tuple(FirstError.from_json(error) for error in value.get("first_errors") or ()),
            merged=RowChanges.from_json(value["merged"]) if value.get("merged") else None,
            landed=LandedRows.from_json(value["landed"]) if value.get("landed") else None,
        )


_PLAIN = ("snapshots", "violations", "nulls", "newest", "unconverted", "delete_missing", "left")


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> Mapping[str, int]:
    if not left or not right:
        return left or right
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def _newest(left: Mapping[str, str], right: Mapping[str, str]) -> Mapping[str, str]:
    """The greater time of each column."""
    return {name: max(left.get(name, time), time) for name, time in {**left, **right}.items()}


def _profiles(left: Mapping[str, Profile], right: Mapping[str, Profile]) -> Mapping[str, Profile]:
    if not left or not right:
        return left or right
    return {**left, **{name: left[name] + found if name in left else found for name, found in right.items()}}
