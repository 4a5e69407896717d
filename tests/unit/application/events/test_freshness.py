"""How old what destinations hold is: by the source's clock where it has one, else by the run's begin."""

from datetime import UTC, datetime, timedelta

import pytest

from application.events.freshness import Freshness
from application.events.telemetry import EventTelemetry
from domain.events import Origin, RunFinished
from domain.runs.work import WorkKind
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import KeptTelemetry

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("complete_as_of", "seconds"),
    [
        ("2026-01-01T11:59:00+00:00", 60.0),
        ("2026-01-01T11:59:00", 60.0),
        (None, 30.0),
        ("12026-01-01T00:00:00+00:00", 30.0),
        ("2026-01-01T12:01:00+00:00", 0.0),
    ],
)
def test_age_is_counted_from_what_the_source_says_else_from_the_begin(
    complete_as_of: str | None, seconds: float
) -> None:
    freshness = Freshness()
    freshness.note("one", "orders", complete_as_of, NOON - timedelta(seconds=30))

    assert freshness.ages(NOON) == {("one", "orders"): seconds}


def test_what_is_heard_late_makes_nothing_older_and_what_is_gone_is_forgotten() -> None:
    freshness = Freshness()
    for minutes in (5, 9, 7):
        freshness.note("one", "orders", None, NOON - timedelta(minutes=minutes))
    freshness.note("two", "sales", None, NOON)
    assert freshness.ages(NOON)["one", "orders"] == 300
    assert freshness.names() == {"one": ["orders"], "two": ["sales"]}

    freshness.forget("one", "orders")

    assert freshness.names() == {"two": ["sales"]}


@pytest.mark.parametrize(("status", "kind", "is_noted"), [("succeeded", 0, True), ("failed", 0, False)])
def test_only_a_run_that_succeeded_refreshes(status: str, kind: int, is_noted: bool) -> None:
    freshness, clock = Freshness(), FakeClock()
    origin = Origin("one", WorkKind.PIPELINE.named("orders"), "r1")
    ended = RunFinished(origin, status, "published", 10, 8, 90.0)
    EventTelemetry(KeptTelemetry(), clock, freshness)(ended.event_type, ended.payload())

    assert freshness.ages(clock.now()) == ({("one", "orders"): 90.0} if is_noted else {})
