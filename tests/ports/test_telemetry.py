"""One suite for ITelemetry: that of a process that tells nobody, that which tests keep, and that on OpenTelemetry."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import structlog

from domain.errors import InvalidInputError, UnavailableError
from domain.ports.telemetry import ITelemetry, SpanKind
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.options import OtelOptions
from infrastructure.observability.otel import OtelTelemetry
from infrastructure.observability.telemetry import ContextTelemetry
from infrastructure.observability.traceparent import trace_parent
from tests.collector import Collector, collecting, collecting_over_grpc, endless, frozen, gone
from tests.fakes.telemetry import KeptTelemetry

GIVEN = f"00-{'a' * 32}-{'b' * 16}-01"
NOT_KEPT = f"00-{'a' * 32}-{'b' * 16}-00"
RESOURCE = {"service.name": "headrace", "service.instance.id": "me"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def options(collector: Collector, **more: Any) -> OtelOptions:
    return OtelOptions(RESOURCE, collector.endpoint, **{"delay_seconds": 0.02, **more})


@pytest.fixture(params=["context", "kept", "otel"])
async def telemetry(request: pytest.FixtureRequest, collector: Collector) -> AsyncIterator[ITelemetry]:
    built = {
        "context": ContextTelemetry,
        "kept": KeptTelemetry,
        "otel": lambda: OtelTelemetry(options(collector)),
    }[request.param]()
    await built.open()
    yield built
    await built.close()


@pytest.fixture
async def otel(collector: Collector) -> AsyncIterator[OtelTelemetry]:
    built = OtelTelemetry(options(collector))
    await built.open()
    yield built
    await built.close()


@pytest.mark.parametrize("signal", ["traces", "metrics"])
async def test_one_signal_may_be_sent_without_the_other(signal: str, collector: Collector) -> None:
    telemetry = OtelTelemetry(options(collector, signals=frozenset({signal})))
    await telemetry.open()
    with telemetry.span("work"):
        assert telemetry.current_trace() is not None
        telemetry.count("pipeline.runs", 1, {"pipeline": "p", "organization": "o", "status": "succeeded"})
    await telemetry.close()

    assert (bool(collector.spans), bool(collector.metrics)) == (signal == "traces", signal == "metrics")


@pytest.fixture(params=["otel"])
def of_otel(request: pytest.FixtureRequest) -> str:
    """Whose promise a test is about, where the other adapter sends nothing."""
    return str(request.param)


def trace_id(telemetry: ITelemetry) -> str:
    """Of the trace that the caller is in, which another process can read."""
    current = telemetry.current_trace()
    found = trace_parent(current)
    assert found is not None, current
    assert structlog.contextvars.get_contextvars()["trace_id"] == found.trace_id
    return found.trace_id


@pytest.mark.clause("ITelemetry", 1)
async def test_span_belongs_to_the_trace_given_else_to_the_current_one_else_to_a_new_one(telemetry: ITelemetry) -> None:
    assert telemetry.current_trace() is None
    with telemetry.span("first"):
        first = trace_id(telemetry)
        with telemetry.span("within"):
            assert trace_id(telemetry) == first
            elsewhere = asyncio.create_task(asyncio.to_thread(lambda: trace_id(telemetry)))
            assert await elsewhere == first
        with telemetry.span("given", trace=GIVEN):
            assert trace_id(telemetry) == "a" * 32
            assert telemetry.current_trace() != GIVEN  # The span has an id of its own.
        assert trace_id(telemetry) == first
    assert telemetry.current_trace() is None
    with telemetry.span("second", trace="no trace at all"):
        assert trace_id(telemetry) not in (first, "a" * 32)


@pytest.mark.clause("ITelemetry", 2)
async def test_error_that_leaves_a_span_goes_on_and_its_trace_is_over(
    telemetry: ITelemetry, collector: Collector
) -> None:
    with pytest.raises(UnavailableError), telemetry.span("fails"):
        raise UnavailableError("Gone.", code="x")
    with telemetry.span("says so") as span:
        span.fail("y", "No.")

    assert telemetry.current_trace() is None
    if isinstance(telemetry, KeptTelemetry):
        assert [each.status for each in telemetry.spans] == [("x", "Gone."), ("y", "No.")]
    if isinstance(telemetry, OtelTelemetry):
        await telemetry.close()
        found = [(span.attributes["error.type"], span.error) for span in collector.spans]
        assert found == [("x", "Gone."), ("y", "No.")]


@pytest.mark.clause("ITelemetry", 3, 4)
async def test_numbers_are_taken_without_a_word(telemetry: ITelemetry) -> None:
    for say in (telemetry.count, telemetry.observe, telemetry.gauge):
        say("runs", 1, {"pipeline": "orders"})

    if isinstance(telemetry, KeptTelemetry):
        assert telemetry.numbers == [("runs", 1, {"pipeline": "orders"})] * 3


async def test_span_arrives_with_all_that_was_said_of_it(otel: OtelTelemetry, collector: Collector) -> None:
    said = {"text": "a", "number": 3, "share": 0.5, "is_so": True}
    with otel.span("outer", trace=GIVEN, links=[NOT_KEPT, "nothing"], attributes=said, kind=SpanKind.SERVER) as span:
        span.set({"number": 4})
        span.rename("renamed")
        with otel.span("inner"):
            pass
    await otel.close()

    outer, inner = collector.one("renamed"), collector.one("inner")
    assert (outer.trace_id, outer.parent_id, outer.kind) == ("a" * 32, "b" * 16, 2)
    assert outer.attributes == {**said, "number": 4}
    assert outer.linked == [f"{'a' * 32}-{'b' * 16}"]
    assert (inner.trace_id, inner.parent_id, inner.error) == (outer.trace_id, outer.span_id, None)
    assert {name: outer.resource[name] for name in RESOURCE} == RESOURCE
    assert outer.scope == "headrace"


@pytest.mark.clause("ITelemetry", 2)
@pytest.mark.usefixtures("of_otel")
async def test_error_is_recorded_once_and_without_secrets(otel: OtelTelemetry, collector: Collector) -> None:
    error = ValueError("cannot dial postgresql://me:hunter2@db/x?password=hunter3 with token='hunter4'\nat all")
    with pytest.raises(ValueError, match="cannot"), otel.span("outer"), otel.span("inner"):
        raise error
    with pytest.raises(asyncio.CancelledError), otel.span("cancelled"):
        raise asyncio.CancelledError
    await otel.close()

    text = r"cannot dial postgresql://me:***@db/x?password=*** with token=***\nat all"
    outer, inner = collector.one("outer"), collector.one("inner")
    assert (outer.error, inner.error, inner.attributes["error.type"]) == (text, text, "ValueError")
    assert (outer.exceptions, inner.exceptions) == (
        [],
        [{"exception.type": "ValueError", "exception.message": text}],
    )
    assert collector.one("cancelled").exceptions == []
    assert not collector.says("hunter")


@pytest.mark.clause("ITelemetry", 5)
@pytest.mark.parametrize(
    ("rate", "trace", "is_trusted", "by_parent", "is_kept"),
    [
        (1.0, None, True, True, True),
        (0.0, None, True, True, False),
        (0.0, GIVEN, True, True, True),
        (1.0, NOT_KEPT, True, True, False),
        (0.0, GIVEN, False, True, False),
        (1.0, NOT_KEPT, False, True, True),
        (0.0, GIVEN, True, False, False),
    ],
)
@pytest.mark.usefixtures("of_otel")
async def test_trace_is_kept_where_its_beginning_was_and_strangers_do_not_say_so(
    rate: float, trace: str | None, is_trusted: bool, by_parent: bool, is_kept: bool, collector: Collector
) -> None:
    telemetry = OtelTelemetry(options(collector, rate=rate, by_parent=by_parent))
    await telemetry.open()
    with telemetry.span("asked", trace=trace, is_trusted=is_trusted):
        asked = telemetry.current_trace()
        with telemetry.span("within"):
            pass
    with telemetry.span("elsewhere", trace=asked):
        pass
    await telemetry.close()

    assert trace_parent(asked) is not None
    assert (asked or "").endswith("01") == is_kept
    assert {span.name for span in collector.spans} == ({"asked", "within", "elsewhere"} if is_kept else set())


@pytest.mark.clause("ITelemetry", 5)
@pytest.mark.usefixtures("of_otel")
async def test_stranger_cannot_choose_a_trace_that_is_always_kept(collector: Collector) -> None:
    telemetry = OtelTelemetry(options(collector, rate=0.1))
    await telemetry.open()
    for _ in range(100):
        with telemetry.span("asked", trace=f"00-{'a' * 16}{'0' * 15}1-{'b' * 16}-01", is_trusted=False):
            pass
    await telemetry.close()

    assert len(collector.spans) < 60  # All of them, by its id.


async def test_setting_that_the_library_reads_itself_and_refuses_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zip")
    telemetry = OtelTelemetry(options(collector, protocol="grpc"))
    with pytest.raises(InvalidInputError, match="OTEL_EXPORTER_OTLP_") as caught:
        await telemetry.open()
    await telemetry.close()
    assert caught.value.code == "telemetry.settings"


async def test_what_is_done_outside_of_every_trace_by_a_library_begins_none(
    otel: OtelTelemetry, collector: Collector
) -> None:
    with otel.span("polls", kind=SpanKind.CONSUMER), otel.span("within"):
        pass
    with otel.span("own"):
        pass
    await otel.close()

    assert [span.name for span in collector.spans] == ["own"]


async def test_spans_go_over_grpc_with_headers() -> None:
    with collecting_over_grpc() as collector:
        telemetry = OtelTelemetry(options(collector, protocol="grpc", headers={"X-Key": "hunter2"}))
        await telemetry.open()
        with telemetry.span("over grpc"):
            pass
        await telemetry.close()

    assert collector.one("over grpc").resource["service.name"] == "headrace"
    assert collector.headers[0]["x-key"] == "hunter2"


async def test_headers_and_the_path_are_those_that_were_set(collector: Collector) -> None:
    telemetry = OtelTelemetry(options(collector, headers={"X-Key": "hunter2"}))
    await telemetry.open()
    with telemetry.span("over http"):
        pass
    await telemetry.close()

    assert {name.lower(): value for name, value in collector.headers[0].items()}["x-key"] == "hunter2"
    assert "hunter2" not in repr(options(collector, headers={"X-Key": "hunter2"}))


async def test_redirect_of_a_collector_is_not_followed_with_what_is_secret(collector: Collector) -> None:
    with collecting(307) as redirecting:
        redirecting.location = f"{collector.endpoint}/v1/traces"
        telemetry = OtelTelemetry(options(redirecting, headers={"X-Key": "hunter2"}))
        await telemetry.open()
        with telemetry.span("work"):
            pass
        await telemetry.close()

    assert (redirecting.requests, collector.requests) == (1, 0)
    assert telemetry.drops()["export_failed"] == 1


async def test_answer_without_an_end_is_not_read_to_it() -> None:
    with endless() as collector:
        telemetry = OtelTelemetry(options(collector))
        await telemetry.open()
        with telemetry.span("work"):
            pass
        await telemetry.close()

    assert telemetry.drops() == {"queue_full": 0, "export_failed": 0}
    assert 0 < collector.requests < 50_000_000  # As much as the kernel's buffers hold.


def troubled(trouble: str) -> AbstractContextManager[Collector]:
    return {"refusing": lambda: collecting(500), "frozen": frozen, "gone": gone}[trouble]()


@pytest.mark.clause("ITelemetry", 4, 6)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("trouble", ["refusing", "frozen", "gone"])
@pytest.mark.usefixtures("of_otel")
async def test_collector_in_trouble_is_waited_for_by_nobody_and_what_is_lost_is_counted(
    trouble: str, protocol: str
) -> None:
    with troubled(trouble) as collector:
        telemetry = OtelTelemetry(options(collector, protocol=protocol, queue_size=10, batch_size=5, flush_seconds=0.3))
        await telemetry.open()
        started = time.perf_counter()
        for _ in range(200):
            with telemetry.span("work"):
                pass
        assert time.perf_counter() - started < 2
        assert sum(telemetry.drops().values()) >= 200 - 10 - 5

        started = time.perf_counter()
        await telemetry.close()
        assert time.perf_counter() - started < 2
        with telemetry.span("later"):
            assert telemetry.current_trace() is not None


async def test_trouble_and_its_end_are_one_line_each(collector: Collector) -> None:
    collector.status = 400
    telemetry = OtelTelemetry(options(collector))
    await telemetry.open()
    with structlog.testing.capture_logs() as lines:
        for wanted, status in ((1, 400), (2, 400), (3, 200), (4, 200)):
            collector.status = status
            with telemetry.span("work"):
                pass
            await asyncio.to_thread(collector.wait_for, lambda it, wanted=wanted: it.requests >= wanted)
        await telemetry.close()

    assert [line["event"] for line in lines] == ["telemetry.unreachable", "telemetry.exported"]
    assert telemetry.drops() == {"queue_full": 0, "export_failed": 2}
    assert collector.endpoint in json.dumps(lines[0])


async def test_nothing_is_sent_before_it_is_opened_and_after_it_is_closed(collector: Collector) -> None:
    telemetry = OtelTelemetry(options(collector))
    with telemetry.span("before"):
        assert trace_id(telemetry)
    await telemetry.open()
    await telemetry.close()
    with telemetry.span("after"):
        assert trace_id(telemetry)
    await telemetry.close()

    assert collector.requests == 0


WORK = {"organization": "o", "pipeline": "orders"}


@pytest.mark.clause("ITelemetry", 3)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.usefixtures("of_otel")
async def test_numbers_arrive_in_the_series_that_are_shown_at_home(protocol: str) -> None:
    numbers = Numbers(most_series=4)
    with collecting() if protocol != "grpc" else collecting_over_grpc() as collector:
        telemetry = OtelTelemetry(options(collector, protocol=protocol, metrics_interval_seconds=0.05), numbers)
        await telemetry.open()
        telemetry.count("pipeline.run.retries", 2, WORK)
        telemetry.gauge("pipeline.quality.value", 0.5, {**WORK, "rule": "unique", "column": "id"})
        await asyncio.to_thread(collector.wait_for, lambda it: len(it.metrics) == 2)
        for number in range(6):
            telemetry.count("pipeline.run.retries", 1, {**WORK, "pipeline": f"p{number}", "run_id": "r1"})
        telemetry.observe("pipeline.batch.size", 20, {**WORK, "status": "succeeded"})
        telemetry.count("pipeline.made.up", 1, WORK)
        await telemetry.close()

    def of(**labels: str) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(labels.items()))

    assert collector.metrics == {
        "pipeline.run.retries": {
            of(**WORK): 2,
            **{of(organization="o", pipeline=f"p{number}"): 1 for number in range(3)},
            of(organization="other", pipeline="other"): 3,
        },
        "pipeline.quality.value": {of(**WORK, rule="unique", column="id"): 0.5},
        "pipeline.batch.size": {of(**WORK, status="succeeded"): (1, 20.0)},
    }


@pytest.mark.clause("ITelemetry", 4, 6)
@pytest.mark.parametrize("trouble", ["gone", "frozen", "refusing"])
@pytest.mark.usefixtures("of_otel")
async def test_collector_in_trouble_keeps_no_number_from_being_counted_nor_a_process_from_its_end(trouble: str) -> None:
    how = {"gone": gone, "frozen": frozen, "refusing": lambda: collecting(500)}[trouble]
    numbers = Numbers()
    with how() as collector, structlog.testing.capture_logs() as lines:
        telemetry = OtelTelemetry(options(collector, metrics_interval_seconds=0.1, flush_seconds=0.3), numbers)
        await telemetry.open()
        begun = time.monotonic()
        for _ in range(1000):
            telemetry.count("pipeline.run.retries", 1, WORK)
        counted = time.monotonic()
        await telemetry.close()
        closed = time.monotonic()

    assert counted - begun < 1
    assert closed - counted < 3  # A second, and a tenth to let go; machines stall.
    assert next(numbers.values())[1] == {("o", "orders"): 1000}
    assert len([line for line in lines if "metrics" in line["event"]]) <= 1


@pytest.mark.clause("ITelemetry", 6)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("signal", ["traces", "metrics"])
@pytest.mark.parametrize("trouble", ["gone", "frozen"])
@pytest.mark.usefixtures("of_otel")
async def test_collector_that_was_silent_while_all_else_ended_is_not_waited_for(
    trouble: str, signal: str, protocol: str
) -> None:
    with troubled(trouble) as collector:
        telemetry = OtelTelemetry(
            options(
                collector,
                protocol=protocol,
                signals=frozenset({signal}),
                delay_seconds=60,
                timeout_seconds=60,
                flush_seconds=60,
            )
        )
        await telemetry.open()
        with telemetry.span("work"):
            telemetry.count("pipeline.run.retries", 1, WORK)
        telemetry.begin_close()
        await asyncio.sleep(0.8)
        async with asyncio.timeout(30):  # Which is half of what it would get.
            await telemetry.close()


@pytest.mark.clause("ITelemetry", 6)
async def test_what_there_is_goes_out_when_the_end_begins_and_the_rest_with_the_end(collector: Collector) -> None:
    telemetry = OtelTelemetry(options(collector, delay_seconds=60, metrics_interval_seconds=60))
    await telemetry.open()
    with telemetry.span("before"):
        telemetry.count("pipeline.run.retries", 1, WORK)
    telemetry.begin_close()
    telemetry.begin_close()
    async with asyncio.timeout(20):
        while not (collector.spans and collector.metrics):
            await asyncio.sleep(0.01)
    assert [span.name for span in collector.spans] == ["before"]

    with telemetry.span("since"):
        telemetry.count("pipeline.run.retries", 2, WORK)
    await telemetry.close()

    assert [span.name for span in collector.spans] == ["before", "since"]
    assert collector.metrics["pipeline.run.retries"].popitem()[1] == 3
    assert sum(telemetry.drops().values()) == 0
