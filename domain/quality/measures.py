"""What is counted and measured of rows, and how the measures of parts add up."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from domain.quality.profile import merge_profiles


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

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return dict(vars(self))


def merge_stats(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Add two measures of streams: numbers add, mappings merge, lists join up to ten items, texts keep the first;
    of `newest` the greatest time of each column stays, and `profiles` of a column add up as profiles do."""
    merged = dict(left)
    for key, value in right.items():
        if key not in merged:
            merged[key] = value
        elif key == "newest":
            merged[key] = {n: max(t for t in (merged[key].get(n), value.get(n)) if t) for n in {**merged[key], **value}}
        elif key == "profiles":
            own = merged[key]
            merged[key] = {**own, **{n: merge_profiles(own[n], p) if n in own else p for n, p in value.items()}}
        elif isinstance(value, Mapping):
            merged[key] = merge_stats(merged[key], value)
        elif isinstance(value, list):
            merged[key] = (list(merged[key]) + value)[:10]
        elif isinstance(value, int | float):
            merged[key] = merged[key] + value
    return merged
