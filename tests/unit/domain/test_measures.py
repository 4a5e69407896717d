"""Measures and profiles add up however rows are cut into parts, and are stored as they are."""

import base64
import json
from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.first_errors import MOST_FIRST_ERRORS, FirstError
from domain.quality.measures import LandedRows, Measures, RowChanges
from domain.quality.profile import Profile, ProfileSummary

NAMES = st.sampled_from(["a", "b", "c"])
COUNTS = st.dictionaries(NAMES, st.integers(0, 9))
TEXTS = st.none() | st.sampled_from(["x", "y"])
CHANGES = st.builds(RowChanges, *[st.integers(0, 9)] * 3)
REGISTERS = st.binary(min_size=4, max_size=4).map(lambda ranks: base64.b64encode(ranks).decode())
NUMBERS = st.none() | st.integers(-9, 9)
PROFILES = st.builds(
    Profile,
    count=st.integers(0, 9),
    nulls=st.integers(0, 9),
    min=NUMBERS,
    max=NUMBERS,
    sum=st.integers(-9, 9),
    buckets=st.dictionaries(st.sampled_from(["z", "p1", "n2"]), st.integers(1, 9)),
    registers=REGISTERS,
    top=COUNTS,
)
MEASURES = st.builds(
    Measures,
    snapshots=COUNTS,
    violations=COUNTS,
    nulls=COUNTS,
    newest=st.dictionaries(NAMES, st.sampled_from(["2026-01-01", "2026-01-02T00:00:00+00:00"])),
    profiles=st.dictionaries(NAMES, PROFILES),
    unconverted=COUNTS,
    first_errors=st.lists(
        st.builds(FirstError, st.just("rule"), TEXTS, st.integers(0, 9), TEXTS, TEXTS, TEXTS, TEXTS), max_size=6
    ).map(tuple),
    merged=st.none() | CHANGES,
    delete_missing=TEXTS,
    landed=st.none() | st.builds(LandedRows, st.integers(0, 9), st.none() | st.integers(0, 9)),
)
FEW = settings(max_examples=50, deadline=None)


@FEW
@given(MEASURES)
def test_measures_are_read_as_they_were_stored(measures: Measures) -> None:
    stored = json.dumps(measures.to_json())

    assert Measures.from_json(json.loads(stored)) == measures
    assert json.dumps(Measures.from_json(json.loads(stored)).to_json()) == stored


@FEW
@given(st.lists(MEASURES, min_size=1, max_size=5), st.data())
def test_measures_add_up_however_the_parts_are_cut(parts: list[Measures], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(parts)))

    whole = reduce(add, parts, Measures())

    assert sum(parts[:cut], Measures()) + sum(parts[cut:], Measures()) == whole
    assert len(whole.first_errors) == min(MOST_FIRST_ERRORS, sum(len(part.first_errors) for part in parts))
    assert sum(whole.nulls.values()) == sum(count for part in parts for count in part.nulls.values())


def test_nothing_is_stored_of_what_was_not_measured() -> None:
    assert Measures().to_json() == {}
    assert Measures.from_json({}) == Measures()


def test_what_is_stored_has_the_names_and_the_order_that_earlier_versions_wrote() -> None:
    measures = Measures(
        snapshots={"1:s": 1},
        violations={"0:between": 1},
        nulls={"a": 0},
        newest={"at": "2026-01-01"},
        unconverted={"a": 1},
        first_errors=(FirstError("conversion", "does not convert", 3, "a", "text", "s", "line 4"),),
        merged=RowChanges(1, 2, 3),
        delete_missing="skipped",
        landed=LandedRows(3, None),
    )

    assert json.dumps(measures.to_json()) == (
        '{"snapshots": {"1:s": 1}, "violations": {"0:between": 1}, "nulls": {"a": 0}, "newest": {"at": "2026-01-01"}, '
        '"unconverted": {"a": 1}, "first_errors": [{"kind": "conversion", "message": "does not convert", "ordinal": 3, '
        '"column": "a", "shape": "text", "stream": "s", "place": "line 4"}], '
        '"merged": {"inserted": 1, "updated": 2, "deleted": 3}, "delete_missing": "skipped", '
        '"landed": {"written": 3, "shown": null}}'
    )


@pytest.mark.parametrize(
    "stored",
    [
        {"kind": "rule", "message": "m"},
        {"kind": "conversion", "message": "m", "ordinal": 1},
        {"kind": "conversion", "message": "m", "ordinal": 1, "column": "c"},
    ],
)
def test_errors_of_earlier_versions_noted_less_and_are_told_as_they_were(stored: dict[str, object]) -> None:
    assert FirstError.from_json(stored).to_json() == stored


def test_what_a_later_version_has_measured_too_is_no_obstacle() -> None:
    assert Measures.from_json({"nulls": {"a": 1}, "skew": {"a": 2}}) == Measures(nulls={"a": 1})
    assert Profile.from_json({"count": 3, "skew": 2}) == Profile(count=3)


@FEW
@given(PROFILES, PROFILES, PROFILES)
def test_profiles_add_up_in_any_order_of_additions(first: Profile, second: Profile, third: Profile) -> None:
    assert (first + second) + third == first + (second + third)
    assert Profile.from_json(json.loads(json.dumps(first.to_json()))) == first


@pytest.mark.parametrize(
    "profile", [Profile(2, 1, top={"a": 2}), Profile(2, 0, 1.5, 3, 4.5, {"p21": 1, "p56": 1}, top={"1.5": 1})]
)
def test_summaries_are_read_as_they_were_told(profile: Profile) -> None:
    shown = profile.summary.to_json()

    assert ProfileSummary.from_json(json.loads(json.dumps(shown))) == profile.summary
    assert ("mean" in shown) == bool(profile.buckets)
