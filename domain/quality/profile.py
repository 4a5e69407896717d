"""What a column's values look like, in a form that adds up over batches and streams: the memory of rule `distribution`.

A profile is plain JSON: `count` and `nulls` of rows, `min`, `max` and `sum` of numbers, `buckets` of a histogram whose
bounds grow by ACCURACY on either side (DDSketch, Masson et al., VLDB 2019), the `registers` of a HyperLogLog (Flajolet
et al., 2007) and the `top` values with how often each was seen.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

ACCURACY = 0.01
"""How far a quantile may be off, relative to its value."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
REGISTER_BITS = 10
KEPT_TOP = 100
SHOWN_TOP = 10
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Profile = Mapping[str, Any]


def merge_profiles(left: Profile, right: Profile) -> dict[str, Any]:
    """Add two profiles of one column."""
    merged: dict[str, Any] = {name: left[name] + right[name] for name in ("count", "nulls", "sum")}
    for name, choose in (("min", min), ("max", max)):
        found = [side[name] for side in (left, right) if side[name] is not None]
        merged[name] = choose(found) if found else None
    merged["buckets"] = _added(left["buckets"], right["buckets"])
    pairs = zip(base64.b64decode(left["registers"]), base64.b64decode(right["registers"]), strict=True)
    merged["registers"] = base64.b64encode(bytes(max(pair) for pair in pairs)).decode()
    top = _added(left["top"], right["top"])
    merged["top"] = dict(sorted(top.items(), key=lambda item: (-item[1], item[0]))[:KEPT_TOP])
    return merged


def summary(profile: Profile) -> dict[str, Any]:
    """What a person wants to know of a profile: bounds, mean, quantiles, an estimate of the distinct
    values, the top.
    """
    count = profile["count"]
    numbers = sum(profile["buckets"].values())
    shown: dict[str, Any] = {"count": count, "nulls": profile["nulls"], "distinct": _distinct(profile)}
    if numbers:
        shown |= {"min": profile["min"], "max": profile["max"], "mean": profile["sum"] / numbers}
        shown["quantiles"] = {f"p{round(100 * q):02d}": _quantile(profile, q) for q in QUANTILES}
    shown["top"] = dict(list(profile["top"].items())[:SHOWN_TOP])
    return shown


def drift(now: Profile, before: Profile) -> float | None:
    """How far two profiles are apart, from 0 to 1; None when one of them has no values.

    Numbers: the greatest distance of the distribution functions (Kolmogorov and Smirnov). Other values: half the sum of
    the differences of their shares (total variation), what is not among the top values taken together.
    """
    if not now["count"] or not before["count"]:
        return None
    if now["buckets"] and before["buckets"]:
        return _greatest_gap(now["buckets"], before["buckets"])
    names = sorted({*now["top"], *before["top"]})
    shares = [[profile["top"].get(name, 0) / profile["count"] for name in names] for profile in (now, before)]
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
    buckets = profile["buckets"]
    wanted, seen = share * (sum(buckets.values()) - 1), 0
    value = 0.0
    for name in _ordered(buckets):
        value, seen = bucket_value(name), seen + buckets[name]
        if seen > wanted:
            break
    return float(min(max(value, profile["min"]), profile["max"]))


def _greatest_gap(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    totals = sum(now.values()), sum(before.values())
    below, gap = [0, 0], 0.0
    for name in _ordered(now, before):
        below = [below[0] + now.get(name, 0), below[1] + before.get(name, 0)]
        gap = max(gap, abs(below[0] / totals[0] - below[1] / totals[1]))
    return round(gap, 6)


def _distinct(profile: Profile) -> int:
    registers = base64.b64decode(profile["registers"])
    size = len(registers)
    estimate = 0.7213 / (1 + 1.079 / size) * size**2 / sum(2.0**-rank for rank in registers)
    empty = registers.count(0)
    if estimate <= 2.5 * size and empty:
        estimate = size * math.log(size / empty)  # Few values: by the registers that were never hit.
    return min(round(estimate), int(profile["count"]))
