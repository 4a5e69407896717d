"""Pure rules of the domain: counting, judging, choosing how to publish, names."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from domain.errors import PermissionDeniedError, SpecError
from domain.failpoints import arm, fail_at
from domain.first_errors import FirstError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal, Role
from domain.loads.checkpoint import LaneState
from domain.loads.memory import LaneMemory
from domain.loads.read_set import ReadSet
from domain.pipelines.plan import choose_publishing
from domain.pipelines.spec import PipelineSpec, Publish, parse_duration
from domain.quality.measures import Counts, Measures
from domain.quality.profile import Profile
from domain.quality.rules import Evidence, OnViolation, Rule, judge
from domain.stores.table import TableName
from entrypoints.composition.failpoints import arm_from
from entrypoints.documents.models import PipelineDocument
from tests.ports.loading import read_set

DOCUMENT = {
    "version": 1,
    "pipeline": "orders",
    "source": {"table": "orders", "key": ["id"], "cursor": {"column": "at", "hold_back": "5m"}},
    "destination": {"table": "copied"},
}


def spec(**changes: object) -> PipelineSpec:
    return PipelineSpec.from_document({**DOCUMENT, **changes})


@pytest.mark.invariant("D6")
def test_counts_that_do_not_add_up_cannot_be_made() -> None:
    total = Counts(read=3, used=1, filtered=1, quarantined=1) + Counts(read=1, failed=1)

    assert total == Counts(read=4, used=1, filtered=1, quarantined=1, failed=1)
    with pytest.raises(ValueError):
        Counts(read=2, used=1)


def test_measures_of_streams_add_up() -> None:
    first, *others = (FirstError(ordinal=number) for number in (1, 2, *range(20)))
    left = Measures(nulls={"a": 1}, first_errors=(first, others[0]), delete_missing="x")

    merged = left + Measures(
        nulls={"a": 2, "b": 1}, first_errors=tuple(others[1:]), delete_missing="y", unconverted={"n": 1}
    )

    assert merged == Measures(
        nulls={"a": 3, "b": 1},
        first_errors=tuple(FirstError(ordinal=number) for number in (1, 2, *range(8))),
        delete_missing="x",
        unconverted={"n": 1},
    )


@pytest.mark.parametrize(
    ("rule", "measures", "verdict"),
    [
        (Rule("row_count", minimum=10), {}, "pass"),
        (Rule("row_count", minimum=11), {}, "fail"),
        (Rule("row_count", maximum=9, on_violation=OnViolation.WARN), {}, "warn"),
        (Rule("null_rate", column="a", maximum=0.1), {"nulls": {"a": 1}}, "pass"),
        (Rule("null_rate", column="a", maximum=0.1), {"nulls": {"a": 2}}, "fail"),
        (Rule("unique", columns=("a",)), {"duplicates": {("a",): 0}}, "pass"),
        (Rule("unique", columns=("a",)), {"duplicates": {("a",): 3}}, "fail"),
        (Rule("completeness", expected=10, threshold=0.98), {"expected": {0: 10}}, "pass"),
        (Rule("completeness", expected=11, threshold=0.98), {"expected": {0: 11}}, "fail"),
        (Rule("between", OnViolation.QUARANTINE, column="a"), {"violations": {"0:between": 1}}, "quarantined"),
    ],
)
def test_rules_are_judged_over_the_whole_read_set(
    rule: Rule, measures: dict[str, dict[object, int]], verdict: str
) -> None:
    judgement = judge([rule], Evidence(counts=Counts(read=10, used=10, produced=10), **measures))  # type: ignore[arg-type]

    assert judgement.results[0].verdict == verdict
    assert bool(judgement.rejected) == (verdict == "fail")


def test_publishing_is_chosen_and_contradictions_are_refused() -> None:
    cases: list[tuple[dict[str, object], bool, Publish]] = [
        ({}, True, Publish.BATCH),
        ({}, False, Publish.RUN),
        ({"quality": [{"rule": "unique", "columns": ["id"]}]}, True, Publish.RUN),
        ({"quality": [{"rule": "row_count", "min": 1, "on_violation": "warn"}]}, True, Publish.BATCH),
        ({"destination": {"table": "copied", "mode": "replace"}}, True, Publish.RUN),
        ({"destination": {"table": "copied", "publish": "run"}}, True, Publish.RUN),
    ]
    for changes, ordered, expected in cases:
        chosen = choose_publishing(spec(**changes), ordered=ordered)
        assert (chosen.publish, bool(chosen.reason)) == (expected, True), changes
    with pytest.raises(SpecError) as caught:
        choose_publishing(spec(destination={"table": "copied", "mode": "replace", "publish": "batch"}), ordered=True)
    assert caught.value.code == "spec.contradiction"


def test_position_depends_on_source_cursor_key_and_destination_only() -> None:
    base = spec().fingerprint

    assert spec(quality=[{"rule": "not_null", "column": "id"}], run={"batch_rows": 5}, owner="x").fingerprint == base
    assert spec(source={**DOCUMENT["source"], "key": ["id", "x"]}).fingerprint != base  # type: ignore[dict-item]
    assert spec(destination={"table": "other"}).fingerprint != base
    assert spec().with_parameters({"a": 1}).fingerprint != base
    assert spec().lane_for({}) == "main"
    assert spec().lane_for({"a": 1}).startswith("params:")


@pytest.mark.parametrize("chosen", [{"a": True}, {"a": 1.0}, {"a": "1"}, {"b": None}])
def test_parameters_are_the_documents_own_unless_one_has_another_value(chosen: dict[str, Any]) -> None:
    asked = spec(source={"query": "select :a, :b", "parameters": {"a": 1, "b": 2}, "key": ["id"]})

    assert asked.with_parameters({"b": 2, "a": 1}) is asked
    assert asked.has_own_parameters
    assert not asked.with_parameters(chosen).has_own_parameters


def test_a_read_is_whole_without_a_beginning_a_limit_and_chosen_parameters() -> None:
    whole = read_set()
    begun, limited = replace(whole.plan, lo="1"), replace(whole.plan, limit=1)

    assert whole.is_whole
    for part in (replace(whole, id="r1-p"), replace(whole, plan=begun), replace(whole, plan=limited)):
        assert not part.is_whole


def test_stored_read_set_reads_back() -> None:
    planned = replace(read_set(shadow=True, hi="9", streams=2), expected={"0": 3})

    assert ReadSet.from_json(planned.to_json()) == planned


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "5m\n", "٥m", "5y"])
def test_durations_have_one_shape(text: str) -> None:
    assert parse_duration("90s") == timedelta(seconds=90)
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("unit", ["ms", "s", "m", "h", "d"])
def test_a_duration_of_nothing_is_never_taken_for_the_default(unit: str) -> None:
    freshness = {"rule": "freshness", "column": "a", "max_age": f"0{unit}"}
    for where in ({"run": {"timeout": f"0{unit}"}}, {"quality": [freshness]}):
        with pytest.raises(ValidationError, match="more than nothing"):
            PipelineDocument.model_validate({**DOCUMENT, **where})
    PipelineDocument.model_validate({**DOCUMENT, "run": {"timeout": f"1{unit}"}})

    # What had been stored before that was refused, and what may be nothing.
    cursor = {"column": "a", "patience": f"0{unit}", "hold_back": f"0{unit}"}
    source = {**DOCUMENT["source"], "cursor": cursor}  # type: ignore[dict-item]
    stored = spec(run={"timeout": f"0{unit}"}, retry={"backoff": f"0{unit}"}, source=source)
    assert stored.run.timeout_or(timedelta(hours=1)) == stored.retry.backoff == timedelta()
    assert spec().run.timeout_or(timedelta(hours=1)) == timedelta(hours=1)
    assert stored.source.cursor is not None
    assert stored.source.cursor.patience == stored.source.cursor.hold_back == timedelta()


@pytest.mark.parametrize(
    "text", ["", "a.", ".a", "a.b.c", 'a"b', "a\n", "x" * 64, "é" * 32, "pg_catalog.x", "_headrace_x", "s._HEADRACE_y"]
)
def test_table_names_have_one_shape(text: str) -> None:
    assert TableName.parse("s.t") == TableName("t", "s")
    with pytest.raises(ValueError):
        TableName.parse(text)


def test_permission_is_asked_of_the_table() -> None:
    viewer = Principal("v", "default", frozenset({Role.VIEWER}))

    require(viewer, Action.READ)
    with pytest.raises(PermissionDeniedError):
        require(viewer, Action.TRIGGER)


def test_several_failpoints_are_armed_at_once_and_sleep_for_as_long_as_is_said() -> None:
    arm_from("batch.before_begin:1+:sleep=0.001,batch.mid_rows:2:raise")
    try:
        fail_at("batch.before_begin")
        fail_at("batch.mid_rows")
        with pytest.raises(Exception, match=r"batch\.mid_rows fired"):
            fail_at("batch.mid_rows")
    finally:
        arm(None)


def test_failpoints_do_nothing_unless_armed() -> None:
    fail_at("batch.before_begin")
    arm_from("batch.before_begin:2:raise")
    try:
        fail_at("batch.before_begin")
        fail_at("batch.mid_rows")
        with pytest.raises(Exception, match="fired"):
            fail_at("batch.before_begin")
        fail_at("batch.before_begin")
    finally:
        arm(None)
    wrong_ones = (
        "nothing:1:kill", "batch.mid_rows:0:kill", "batch.mid_rows:1:explode", "batch.mid_rows",
        "batch.mid_rows:1:sleep=nan", "batch.mid_rows:1:kill=1", "batch.mid_rows:1:kill,",
    )  # fmt: skip
    for wrong in wrong_ones:
        with pytest.raises(Exception, match="HEADRACE_FAILPOINT"):
            arm_from(wrong)


def test_profiles_of_what_is_published_are_known_while_a_read_set_is_open() -> None:
    """A run that failed before its first batch is followed by one that is planned anew."""
    published = LaneMemory("f", profiles={"amount": Profile(count=3)})
    loading = LaneMemory("f", replace(read_set(), baseline={"amount": Profile(count=3)}))

    assert published.latest_profiles == loading.latest_profiles == {"amount": Profile(count=3)}
    assert LaneState("idle", 0).memory.latest_profiles is None
