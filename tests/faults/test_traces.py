"""One trace from the request to the commits, through processes that share a broker."""

from pathlib import Path

import pytest

from tests.collector import Collector, Taken, collecting
from tests.faults.installation import installed, with_copies

ASKED = f"00-{'a' * 32}-{'b' * 16}-01"


def above(collector: Collector, span: Taken) -> list[str]:
    """The names of the spans that a span lies in, from the inside."""
    by_id = {each.span_id: each for each in collector.spans}
    names = []
    while span.parent_id in by_id:
        span = by_id[span.parent_id]
        names.append(span.name)
    return names


@pytest.mark.parametrize("queue", ["redis", "kafka"])
def test_run_is_one_trace_from_the_request_to_its_commits(
    queue: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    with collecting() as collector, installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 1, rows=20, batch_rows=10)
        telling = collector.environment(OTEL_SAMPLING_RATE="0.1")
        server, worker = made.api(**telling), made.worker(**telling)
        answer = server.call("POST", "/v1/pipelines/copy0/trigger", {}, headers={"traceparent": ASKED})
        assert server.wait_for(answer.body["id"])["state"] == "succeeded"
        collector.wait_for(lambda it: bool(it.named("run") and it.named("claim run")))
        assert (server.stop(), worker.stop()) == (0, 0)

    run, request = collector.one("run"), collector.one("POST /v1/pipelines/{name}/trigger")
    assert request.parent_id == "b" * 16
    assert answer.headers["traceparent"] == f"00-{'a' * 32}-{request.span_id}-01"
    mine = [span for span in collector.spans if span.trace_id == "a" * 32]
    assert len(collector.named("batch")) >= 2
    for commit in collector.named("commit"):
        chain = ["batch", "stream", "run", "RunLauncher.launch", request.name]
        assert above(collector, commit) in (chain, chain[1:])
    # The worker's tender may have been quicker than the ring, which then claims nothing.
    claim = next(span for span in collector.named("claim run") if span.attributes.get("headrace.claimed"))
    rung = ["publish runs", "RunLauncher.launch", request.name]
    assert rung in [above(collector, span) for span in collector.named("claim run")]
    assert run.linked == [f"{claim.trace_id}-{claim.span_id}"]
    within = {span.name for span in mine if span.parent_id == run.span_id}
    assert within >= {"open stores", "plan", "stream", "publish"}
    assert "judge" in {span.name for span in mine if span.parent_id == collector.one("stream").span_id}
    instances = {span.name: span.resource["service.instance.id"] for span in (run, claim, request)}
    assert instances["run"] == instances["claim run"]
    assert instances["run"] != instances[request.name]
    library = {"redis": "opentelemetry.instrumentation.redis", "kafka": "opentelemetry.instrumentation.aiokafka"}
    kinds = {span.kind for span in mine if span.scope == library[queue]}
    assert kinds >= ({3} if queue == "redis" else {4, 5}), kinds
    assert {span.scope for span in mine} >= {"opentelemetry.instrumentation.sqlalchemy"}
