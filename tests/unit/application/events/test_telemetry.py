"""Of each event one line is written, and numbers are kept of what is worth counting; labels are names."""

import pytest
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from application.events.announce import Announcer
from application.events.telemetry import EventTelemetry
from domain.events import (
    BatchCommitted,
    BatchFailed,
    Event,
    Origin,
    QualityIssueFound,
    RunFinished,
    RunQueued,
    RunReleased,
    SchemaViolationFound,
)
from domain.runs.work import WorkKind
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import KeptTelemetry

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ORIGIN = Origin("one", WorkKind.PIPELINE.named("orders"), "r1", "c1", f"00-{TRACE_ID}-{SPAN_ID}-01")
LABELS = {"organization": "one", "pipeline": "orders"}
SUCCEEDED = {**LABELS, "status": "succeeded"}
BATCH = BatchCommitted(ORIGIN, "r1/0/1", 10, 8, 0.5, 20.0, 2)
ISSUE = QualityIssueFound(ORIGIN, "between(amount)", "fail", 3.0, None, 3, "amount", "shop", "public.orders")


def announcer(telemetry: KeptTelemetry | None = None, clock: FakeClock | None = None) -> Announcer:
    return Announcer([], [EventTelemetry(telemetry or KeptTelemetry(), clock or FakeClock())])


def test_events_become_lines_and_numbers() -> None:
    telemetry = KeptTelemetry()
    with capture_logs() as lines:
        for event in (
            RunQueued(ORIGIN),
            BATCH,
            ISSUE,
            BatchFailed(ORIGIN, "r1/0/2", 10, "quality.rejected", "No."),
            BatchFailed(ORIGIN, "r1/0/3", 5, "store.unavailable", "Gone."),
            SchemaViolationFound(ORIGIN, "unconverted", "amount", 4),
            RunReleased(ORIGIN, "drained", 0, 0.0),
            RunReleased(ORIGIN, "retry: store.unavailable", 1, 2.0),
            RunFinished(ORIGIN, "failed", "quality.rejected", 10, 8, 1.5, "quality.rejected", "No."),
            RunFinished(ORIGIN, "succeeded", "published", 10, 8, 1.5),
        ):
            announcer(telemetry).tell(event)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("pipeline.queued", "info"),
        ("batch.processed", "info"),
        ("data_quality.issue", "warning"),
        ("batch.failed", "warning"),
        ("batch.failed", "warning"),
        ("data_quality.schema_violation", "warning"),
        ("pipeline.released", "info"),
        ("pipeline.released", "info"),
        ("pipeline.completed", "error"),
        ("pipeline.completed", "info"),
    ]
    assert telemetry.numbers == [
        ("pipeline.records.processed", 8, SUCCEEDED),
        ("pipeline.records.quarantined", 2, LABELS),
        ("pipeline.batch.duration", 0.5, SUCCEEDED),
        ("pipeline.batch.size", 10, SUCCEEDED),
        ("pipeline.quality.violations", 3, {**LABELS, "rule": "between", "column": "amount", "verdict": "fail"}),
        ("pipeline.quality.value", 3.0, {**LABELS, "rule": "between", "column": "amount"}),
        ("pipeline.records.failed", 10, {**LABELS, "status": "rejected"}),
        ("pipeline.records.failed", 5, {**LABELS, "status": "failed"}),
        ("pipeline.schema.violations", 4, {**LABELS, "violation": "unconverted"}),
        ("pipeline.run.retries", 1, LABELS),
        ("pipeline.runs", 1, {**LABELS, "status": "failed"}),
        ("pipeline.run.duration", 1.5, {**LABELS, "status": "failed"}),
        ("pipeline.runs", 1, SUCCEEDED),
        ("pipeline.run.duration", 1.5, SUCCEEDED),
    ]


def test_text_of_a_rule_is_no_label() -> None:
    telemetry = KeptTelemetry()
    written = QualityIssueFound(ORIGIN, "sql(card <> '4111')", "warn", None, None, 1, None, "shop", "orders")
    announcer(telemetry).tell(written)

    labels = {**LABELS, "rule": "sql", "column": "", "verdict": "warn"}
    assert telemetry.numbers == [("pipeline.quality.violations", 1, labels)]


@pytest.mark.parametrize("event", [RunQueued(ORIGIN), BATCH, ISSUE], ids=lambda event: event.event_type)
def test_line_says_whose_it_is_and_by_which_request_and_trace(event: Event) -> None:
    with capture_logs() as lines:
        announcer().tell(event)

    expected = {
        "event_type": event.event_type,
        "pipeline_id": "orders",
        "organization_id": "one",
        "run_id": "r1",
        "correlation_id": "c1",
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
    }
    assert {name: lines[0][name] for name in expected} == expected
    assert not {"subject", "organization", "trace", "origin"} & set(lines[0])


def test_issue_says_what_was_violated_how_much_and_where() -> None:
    with capture_logs() as lines:
        announcer().tell(ISSUE)

    expected = {
        "rule": "between(amount)",
        "verdict": "fail",
        "value": 3.0,
        "threshold": None,
        "affected_rows": 3,
        "column": "amount",
        "source_connection": "shop",
        "source_table": "public.orders",
    }
    assert {name: lines[0][name] for name in expected} == expected


def test_line_within_the_trace_names_the_span_that_it_is_in() -> None:
    with capture_logs() as lines, bound_contextvars(trace_id=TRACE_ID, span_id="b" * 16):
        announcer().tell(BATCH)
    with capture_logs() as others, bound_contextvars(trace_id="a" * 32, span_id="b" * 16):
        announcer().tell(BATCH)

    assert "span_id" not in lines[0]  # What is bound is added to it.
    assert (others[0]["trace_id"], others[0]["span_id"]) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize("trace", [None, "", "zz", "00-1-2"])
def test_run_of_no_trace_has_its_line(trace: str | None) -> None:
    with capture_logs() as lines:
        announcer().tell(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), "r1", trace=trace)))

    assert lines[0]["run_id"] == "r1"
    assert "trace_id" not in lines[0]


def test_lines_of_many_batches_are_for_who_looks_closely() -> None:
    clock = FakeClock()
    telling = announcer(clock=clock)
    with capture_logs() as lines:
        for _ in range(12):
            telling.tell(BATCH)
        clock.advance(1)
        telling.tell(BATCH)

    assert [line["log_level"] for line in lines] == ["info"] * 10 + ["debug"] * 2 + ["info"]
