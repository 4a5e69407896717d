"""Profiles of columns: right within their accuracy, the same however the rows are cut, and how far two are apart."""

import random
import statistics
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from domain.quality.measures import Measures
from domain.quality.profile import Profile, drift
from infrastructure.transforms.profiles import profiles


def profile(values: list[Any], kind: pa.DataType | None = None) -> Profile:
    with duckdb.connect() as connection:
        found: Profile = profiles(connection, pa.table({"a": pa.array(values, kind)}), ["a"])["a"]
    return found


def summary(found: Profile) -> dict[str, Any]:
    return found.summary.to_json()


_RANDOM = random.Random(7)
NUMBERS = [_RANDOM.lognormvariate(3, 2) * sign for _ in range(5_000) for sign in (1, -1)]


def test_numbers_are_described_within_the_accuracy() -> None:
    shown = summary(profile([*NUMBERS, None, 0.0, float("nan"), float("inf")]))

    finite = sorted([*NUMBERS, 0.0])
    assert (shown["min"], shown["max"], shown["nulls"]) == (finite[0], finite[-1], 1)
    assert shown["mean"] == pytest.approx(statistics.fmean(finite))
    for name, value in shown["quantiles"].items():
        assert value == pytest.approx(finite[round(int(name[1:]) / 100 * (len(finite) - 1))], rel=0.021), name
    assert shown["distinct"] == pytest.approx(10_003, rel=0.1)


@pytest.mark.parametrize("distinct", [1, 10, 1_000, 50_000])
def test_distinct_values_are_estimated(distinct: int) -> None:
    assert summary(profile([n % distinct for n in range(60_000)]))["distinct"] == pytest.approx(distinct, rel=0.1)


def test_profiles_add_up_however_the_rows_are_cut() -> None:
    values = [float(round(value, 2)) for value in NUMBERS] + [None] * 9
    parts = [profile(values[start : start + 1_300]) for start in range(0, len(values), 1_300)]

    merged = parts[0]
    for part in parts[1:]:
        merged += part

    whole = profile(values)
    assert {name: vars(merged)[name] for name in ("count", "nulls", "min", "max", "buckets", "registers")} == {
        name: vars(whole)[name] for name in ("count", "nulls", "min", "max", "buckets", "registers")
    }
    assert merged.sum == pytest.approx(whole.sum)
    both = Measures(profiles={"a": parts[0]}) + Measures(profiles={"a": parts[1], "b": parts[2]})
    assert both.profiles == {"a": parts[0] + parts[1], "b": parts[2]}


def test_top_values_are_the_most_frequent() -> None:
    found = profile(["CH"] * 5 + ["DE"] * 3 + ["x" * 300] + [None] * 2, pa.string())

    assert summary(found)["top"] == {"CH": 5, "DE": 3, "x" * 100: 1}
    assert "min" not in summary(found)
    assert summary(profile([True, True, False, None], pa.bool_()))["top"] == {"true": 2, "false": 1}


def test_drift_is_none_for_the_same_and_whole_for_the_other() -> None:
    numbers = profile([float(n) for n in range(1_000)])
    texts = profile(["a"] * 50 + ["b"] * 50)

    assert drift(numbers, numbers) == 0
    assert drift(profile([float(n + 5_000) for n in range(100)]), numbers) == 1
    assert drift(profile([float(n) for n in range(500)]), numbers) == pytest.approx(0.5, abs=0.02)
    assert drift(profile(["a"] * 75 + ["b"] * 25), texts) == 0.25
    assert drift(profile(["c"]), texts) == 1
    assert drift(profile([], pa.string()), texts) is None
    assert drift(profile([None, None], pa.float64()), numbers) is None
    assert summary(profile([], pa.float64()))["count"] == 0
