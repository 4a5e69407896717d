"""What a lane remembers is read as it was stored, also by a version that knows more or less."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.loads.horizon import Horizon, ReadEnd, Standing
from domain.loads.memory import LandingNote, LaneMemory
from domain.loads.read_set import ReadSet, SourceFile, SourcePlan, Stream
from domain.quality.measures import LandedRows, Measures
from domain.quality.profile import Profile
from domain.rule_results import RuleResult

NAMES = st.sampled_from(["id", "at", "note"])
WORDS = st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple)
TEXTS = st.none() | st.sampled_from(["x", "2026-01-01"])
NUMBERS = st.none() | st.integers(-9, 9)
HORIZONS = st.builds(
    Horizon,
    *(st.just("at"), st.just("life"), st.integers(), NUMBERS, NUMBERS, st.integers()),
    standing=st.dictionaries(NAMES, st.builds(Standing, NUMBERS, NUMBERS, st.integers())),
)
ENDS = st.none() | st.builds(ReadEnd, TEXTS, WORDS, WORDS, WORDS, st.none() | HORIZONS)
PROFILES = st.dictionaries(NAMES, st.builds(Profile, st.integers(0, 9)))
PLANS = st.builds(
    SourcePlan,
    columns=st.just((("id", "int64"), ("at", "timestamptz"))),
    streams=st.just((Stream("0", None, "5"), Stream("1", "5"))),
    ordered=st.booleans(),
    order=WORDS,
    lo=TEXTS,
    hi=TEXTS,
    files=st.sampled_from([(), (SourceFile("a.csv", 3, "etag"),)]),
    limit=NUMBERS,
    is_text=st.booleans(),
    note=TEXTS,
    warnings=WORDS,
    partition=TEXTS,
    end=ENDS,
    guessed=WORDS,
    unproved=WORDS,
    is_proved=st.none() | st.booleans(),
    untrusted=TEXTS,
)
READ_SETS = st.builds(
    ReadSet,
    *(st.just("r1"), st.just("f"), PLANS, st.integers(1, 9), TEXTS),
    expected=st.none() | st.just({"0": 3}),
    baseline=st.none() | PROFILES,
    generation=NUMBERS,
    batch_bytes=st.integers(1, 9),
    is_adopted=st.booleans(),
)
LANDINGS = st.none() | st.builds(LandingNote, TEXTS, st.none() | WORDS)
OPEN = st.builds(LaneMemory, st.just("f"), READ_SETS, st.booleans(), LANDINGS)
PUBLISHED = st.builds(
    LaneMemory,
    st.just("f"),
    verdicts=st.sampled_from([(), (RuleResult("unique(id)", "run", "fail", "pass", 1, 0, 0.0),)]),
    measures=st.sampled_from([Measures(), Measures(nulls={"id": 1}, landed=LandedRows(3, None))]),
    profiles=PROFILES,
    end=ENDS,
)


def stored(memory: LaneMemory) -> Any:
    return json.loads(json.dumps(memory.to_json()))


@settings(max_examples=60, deadline=None)
@given(OPEN | PUBLISHED | st.just(LaneMemory()))
def test_memory_is_read_as_it_was_stored(memory: LaneMemory) -> None:
    assert LaneMemory.from_json(stored(memory)) == memory
    assert json.dumps(LaneMemory.from_json(stored(memory)).to_json()) == json.dumps(memory.to_json())


def test_lane_that_remembers_nothing_stores_nothing() -> None:
    assert LaneMemory().to_json() == {}
    assert LaneMemory.from_json({}) == LaneMemory()


@pytest.mark.parametrize("store", ["sqlite_store", "postgres_store"])
def test_lanes_that_an_earlier_version_has_left_are_stored_to_the_letter(store: str) -> None:
    text = (Path(__file__).parents[3] / "faults" / "records_0003" / f"{store}.sql").read_text()
    rows = [line for line in text.splitlines() if line.startswith("INSERT") and "_headrace_checkpoint" in line]
    found = [(", 'head', " in line, re.findall(r"'({.*})'", line)[0].replace("''", "'")) for line in rows]
    heads = [text for is_head, text in found if is_head]
    streams = [text for is_head, text in found if not is_head]

    assert len(heads) > 3
    assert len(streams) > 2
    for head in heads:
        value = json.loads(head)
        if "read_set" in value:
            value["read_set"] |= {"full_refresh": None}  # What the version that wrote it did not know.
        assert json.dumps(LaneMemory.from_json(json.loads(head)).to_json()) == json.dumps(value)
    for measures in streams:
        assert json.dumps(Measures.from_json(json.loads(measures)).to_json()) == measures


READ_SET = ReadSet("r1", "f", SourcePlan((("id", "int64"),), (Stream("0"),), ordered=True), 10, shadow="stage")


@pytest.mark.parametrize(
    ("without", "default"),
    [("is_adopted", False), ("batch_bytes", 64 * 1024 * 1024), ("generation", None), ("baseline", None)],
)
def test_read_set_of_an_earlier_version_has_what_was_meant_without_saying(without: str, default: object) -> None:
    value = READ_SET.to_json()
    del value[without]

    assert getattr(ReadSet.from_json(value), without) == default


@pytest.mark.parametrize("without", ["warnings", "partition", "end", "guessed", "unproved", "is_proved", "untrusted"])
def test_plan_of_an_earlier_version_lacks_what_was_not_known(without: str) -> None:
    value = READ_SET.plan.to_json()
    del value[without]

    assert SourcePlan.from_json(value) == READ_SET.plan


def test_read_set_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    value = READ_SET.to_json()

    assert ReadSet.from_json({**value, "plan": {**value["plan"], "sampled": True}, "priority": 3}) == READ_SET


@pytest.mark.parametrize(
    ("noted", "landing"),
    [
        ({}, None),
        ({"landing": None}, LandingNote()),
        ({"landing": "41"}, LandingNote("41")),
        ({"landing": "41", "landed_by": ["r"]}, LandingNote("41", ("r",))),
    ],
)
def test_earlier_versions_noted_less_of_where_rows_land(noted: Mapping[str, Any], landing: LandingNote | None) -> None:
    value = {"read_set": READ_SET.to_json(), "fingerprint": "f", **noted}

    memory = LaneMemory.from_json(value)

    assert memory.landing == landing
    assert memory.to_json() == value


def test_another_run_is_noted_once_and_only_where_all_are_known() -> None:
    assert LandingNote("41", ("a",)).with_run("b") == LandingNote("41", ("a", "b"))
    assert LandingNote("41", ("a",)).with_run("a") == LandingNote("41", ("a",))
    assert LandingNote("41").with_run("b") == LandingNote("41")


def test_latest_end_and_profiles_are_those_of_the_open_read_set_while_there_is_one() -> None:
    earlier, now = ReadEnd("2026-01-01"), ReadEnd("2026-01-02")
    published = LaneMemory("f", profiles={"id": Profile(1)}, end=earlier)
    planned = replace(READ_SET, baseline={"id": Profile(1)}, plan=replace(READ_SET.plan, end=now))
    loading = LaneMemory("f", planned)

    assert (published.latest_end, loading.latest_end, LaneMemory().latest_end) == (earlier, now, None)
    assert published.latest_profiles == loading.latest_profiles == {"id": Profile(1)}
    assert (published.stage, loading.stage) == (None, "stage")


def test_watermark_beside_what_an_earlier_version_opened_is_of_the_same_source() -> None:
    """Else `--abandon` would keep it for another source, of which what lies below would never be read."""
    opened = replace(READ_SET, full_refresh=False)
    earlier = stored(LaneMemory("f", opened))
    del earlier["read_set"]["full_refresh"]

    assert LaneMemory.from_json(earlier).of_watermark == "f"
    assert LaneMemory("f", opened).of_watermark is None  # Somebody has put the watermark there by hand.
    assert LaneMemory("f", opened, before="other").of_watermark == "other"
    assert LaneMemory("f").of_watermark == "f"
