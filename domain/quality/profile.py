"""What a column's values look like, in a form that adds up over batches and streams: the memory of rule `distribution`.

A profile has `count` and `nulls` of rows, `min`, `max` and `sum` of numbers, `buckets` of a histogram whose
bounds grow by ACCURACY on either side (DDSketch, Masson et al., VLDB 2019), the `registers` of a HyperLogLog (Flajolet
et al., 2007) and the `top` values with how often each was seen.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

ACCURACY = 0.01
"""How far a quantile may be off, relative to its value."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
REGISTER_BITS = 10
KEPT_TOP = 100
SHOWN_TOP = 10
NO_REGISTERS = base64.b64encode(bytes(2**REGISTER_BITS)).decode()
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class ProfileSummary:
    """What a person wants to know of a profile; bounds, mean and quantiles are those of numbers."""

    count: int
    nulls: int
    distinct: int
    top: Mapping[str, int]
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    quantiles: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        shown: dict[str, Any] = {"count": self.count, "nulls": self.nulls, "distinct": self.distinct}
        if self.quantiles is not None:
            shown |= {"min": self.min, "max": self.max, "mean": self.mean, "quantiles": dict(self.quantiles)}
        return {**shown, "top": dict(self.top)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ProfileSummary":
        """Rebuild what `to_json` gave."""
        numbers = {name: value.get(name) for name in ("min", "max", "mean", "quantiles")}
        return cls(value["count"], value["nulls"], value["distinct"], value.get("top") or {}, **numbers)


@dataclass(frozen=True)
class Profile:
    """A column's values in figures that add up: `min`, `max`, `sum` and `buckets` are those of numbers."""

    count: int = 0
    nulls: int = 0
    min: float | None = None
    max: float | None = None
    sum: float = 0.0
    buckets: Mapping[str, int] = field(default_factory=dict)
    registers: str = NO_REGISTERS
    top: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Profile") -> "Profile":
        pairs = zip(base64.b64decode(self.registers), base64.b64decode(other.registers), strict=True)
        top = _added(self.top, other.top)
        return Profile(
            count=self.count + other.count,
            nulls=self.nulls + other.nulls,
            min=min((side.min for side in (self, other) if side.min is not None), default=None),
            max=max((side.max for side in (self, other) if side.max is not None), default=None),
            sum=self.sum + other.sum,
            buckets=_added(self.buckets, other.buckets),
            registers=base64.b64encode(bytes(max(pair) for pair in pairs)).decode(),
            top=dict(sorted(top.items(), key=lambda item: (-item[1], item[0]))[:KEPT_TOP]),
        )

    @property
    def summary(self) -> ProfileSummary:
        """What a person wants to know of it: bounds, mean, quantiles, an estimate of the distinct values, the top."""
        shown = ProfileSummary(self.count, self.nulls, _distinct(self), dict(list(self.top.items())[:SHOWN_TOP]))
        numbers = sum(self.buckets.values())
        if not numbers:
            return shown
        quantiles = {f"p{round(100 * q):02d}": _quantile(self, q) for q in QUANTILES}
        return replace(shown, min=self.min, max=self.max, mean=self.sum / numbers, quantiles=quantiles)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "buckets": dict(self.buckets), "top": dict(self.top)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Profile":
        """Rebuild what `to_json` gave, in this version or another."""
        return cls(**{known.name: value[known.name] for known in fields(cls) if known.name in value})


def drift(now: Profile, before: Profile) -> float | None:
    """How far two profiles are apart, from 0 to 1; None when one of them has no values.

    Numbers: the greatest distance of the distribution functions (Kolmogorov and Smirnov). Other values: half the sum of
    the differences of their shares (total variation), what is not among the top values taken together.
    """
    if not now.count or not before.count:
        return None
    if now.buckets and before.buckets:
        return _greatest_gap(now.buckets, before.buckets)
    names = sorted({*now.top, *before.top})
    shares = [[profile.top.get(name, 0) / profile.count for name in names] for profile in (now, before)]
    rest = [1 - sum(side) for side in shares]
    pairs = [*zip(*shares, strict=True), (rest[0], rest[1])]
    return round(float(sum(abs(left - right) for left, right in pairs)) / 2, 6)


def bucket_value(bucket: str) -> float:
    """The value in the middle of a bucket, which is named by its sign and its number: `p12`, `n-3`, `z`."""
    if bucket == "z":
        return 0.0
    middle = 2 * GAMMA ** int(bucket[1:]) / (GAMMA + 1)
    return middle if bucket[0] == "p" else -middle


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def _ordered(*histograms: Mapping[str, int]) -> Sequence[str]:
    return sorted({name for histogram in histograms for name in histogram}, key=bucket_value)


def _quantile(profile: Profile, share: float) -> float:
    buckets = profile.buckets
    wanted, seen = share * (sum(buckets.values()) - 1), 0
    value = 0.0
    for name in _ordered(buckets):
        value, seen = bucket_value(name), seen + buckets[name]
        if seen > wanted:
            break
    low, high = (bound if bound is not None else value for bound in (profile.min, profile.max))
    return float(min(max(value, low), high))


def _greatest_gap(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    totals = sum(now.values()), sum(before.values())
    below, gap = [0, 0], 0.0
    for name in _ordered(now, before):
        below = [below[0] + now.get(name, 0), below[1] + before.get(name, 0)]
        gap = max(gap, abs(below[0] / totals[0] - below[1] / totals[1]))
    return round(gap, 6)


def _distinct(profile: Profile) -> int:
    registers = base64.b64decode(profile.registers)
    size = len(registers)
    estimate = 0.7213 / (1 + 1.079 / size) * size**2 / sum(2.0**-rank for rank in registers)
    empty = registers.count(0)
    if estimate <= 2.5 * size and empty:
        estimate = size * math.log(size / empty)  # Few values: by the registers that were never hit.
    return min(round(estimate), profile.count)
