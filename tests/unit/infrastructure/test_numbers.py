"""Numbers are kept under what is declared, in no more series than there may be, and nothing that counts is stopped."""

import math
from typing import Any

import pytest

from domain.metrics import METRICS, METRICS_BY_NAME, MetricKind
from infrastructure.observability.numbers import Numbers

WORK = {"organization": "one", "pipeline": "orders"}


def values(numbers: Numbers) -> dict[str, Any]:
    return {metric.name: dict(found) for metric, found in numbers.values()}


def test_sums_add_up_gauges_are_replaced_and_values_go_into_their_buckets() -> None:
    numbers = Numbers()
    for amount in (2, 3):
        assert numbers.count("pipeline.run.retries", amount, WORK) == WORK
        numbers.gauge("pipeline.quality.value", amount, {**WORK, "rule": "unique", "column": "id"})
    for value in (0.5, 10.0, 10.5, 10_000_000.0):
        numbers.observe("pipeline.batch.size", value, {**WORK, "status": "succeeded"})

    assert values(numbers) == {
        "pipeline.run.retries": {("one", "orders"): 5},
        "pipeline.quality.value": {("one", "orders", "unique", "id"): 3},
    }
    ((metric, found),) = numbers.distributions()
    distribution = found["one", "orders", "succeeded"]
    assert metric.name == "pipeline.batch.size"
    assert (distribution.counts, distribution.total) == ([2, 1, 0, 0, 0, 0, 0, 1], 10_000_021.0)


@pytest.mark.parametrize(
    ("say", "name", "value"),
    [
        ("count", "pipeline.made.up", 1.0),
        ("gauge", "pipeline.run.retries", 1.0),
        ("count", "pipeline.batch.size", 1.0),
        ("count", "pipeline.run.retries", -1.0),
        ("count", "pipeline.run.retries", math.nan),
        ("observe", "pipeline.batch.size", math.inf),
        ("gauge", "pipeline.quality.value", math.nan),
    ],
)
def test_what_is_not_declared_or_no_number_is_passed_over(say: str, name: str, value: float) -> None:
    numbers = Numbers()

    assert getattr(numbers, say)(name, value, WORK) is None
    assert (values(numbers), list(numbers.distributions())) == ({}, [])


def test_labels_are_those_that_are_declared_and_bounded_in_length() -> None:
    numbers = Numbers()
    given = {"organization": "o" * 5000, "run_id": "0199-…", "pipeline": "orders"}

    assert numbers.count("pipeline.run.retries", 1, given) == {"organization": "o" * 100, "pipeline": "orders"}
    assert numbers.count("pipeline.run.retries", 1, {}) == {"organization": "", "pipeline": ""}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_series_of_a_metric_are_bounded_and_what_is_beyond_keeps_its_status(metric: Any) -> None:
    numbers = Numbers(most_series=10)
    say = {MetricKind.COUNTER: numbers.count, MetricKind.GAUGE: numbers.gauge, MetricKind.HISTOGRAM: numbers.observe}
    named = {"organization", "pipeline", "column"} & set(metric.labels)
    for number in range(100):
        labels = {label: f"n{number}" if label in named else "w" for label in metric.labels}
        said = say[metric.kind](metric.name, 1.0, labels)

    kept = {each.name: found for each, found in (*numbers.values(), *numbers.distributions())}[metric.name]
    if named:
        assert said == {label: "other" if label in named else "w" for label in metric.labels}
        assert len(kept) == (3 if metric.kind is MetricKind.HISTOGRAM else 11)
        first = next(iter(kept))
        assert "n0" in first  # Whoever was first stays.
    else:
        assert len(kept) == 1


def test_names_are_those_of_prometheus() -> None:
    def shown(name: str) -> str:
        return METRICS_BY_NAME[name].prometheus_name

    assert shown("pipeline.records.processed") == "pipeline_records_processed_total"
    assert shown("pipeline.records.failed") == "pipeline_records_failed_total"
    assert shown("pipeline.batch.duration") == "pipeline_batch_duration_seconds"
    assert shown("pipeline.batch.size") == "pipeline_batch_size"


def test_gauge_of_what_is_gone_is_gone() -> None:
    numbers = Numbers()
    for pipeline in ("a", "b"):
        numbers.gauge("pipeline.freshness", 5, {"organization": "o", "pipeline": pipeline})

    assert numbers.gauge("pipeline.freshness", None, {"organization": "o", "pipeline": "a"}) is None
    assert numbers.gauge("pipeline.freshness", None, {"organization": "o", "pipeline": "never"}) is None
    assert values(numbers) == {"pipeline.freshness": {("o", "b"): 5}}
