"""The numbers of a process as who watches it has them: after runs, by whoever may see them, from API and worker."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from application.operations import measure
from application.runs.launch import TriggerRun
from domain.errors import PermissionDeniedError
from domain.identity.policy import PERMISSIONS, Action
from domain.identity.principal import Principal, Role
from domain.metrics import METRICS
from entrypoints.http.app import create_app, create_probes
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.prometheus import PrometheusPage
from tests.e2e.api import serving
from tests.e2e.inside import ME, Inside, inside
from tests.e2e.projects import with_people

MEMORY = {"HEADRACE_STORE__KIND": "memory"}
DECLARED = {metric.prometheus_name for metric in METRICS}


def series(text: bytes) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What a page shows: the values of each sample's name by their labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def of(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


async def asked(app: Any, headers: Mapping[str, str], version: str = "1.1") -> tuple[int, bytes]:
    """Ask an application for its metrics, as its server would."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "GET", "path": "/metrics", "query_string": b"", "headers": given, "scheme": "http",
        "http_version": version,
    }  # fmt: skip
    await app(scope, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])


async def shown(made: Inside) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    return series(await made.use_cases.metrics.read(None))


PIPELINE = """version: 1
pipeline: people
source: {connection: landing, path: people.csv, key: [id]}
quality:
  - {rule: between, column: age, min: 0, max: 130, on_violation: quarantine}
destination: {table: people, mode: append}
run: {batch_rows: 100}
"""


async def test_run_is_seen_in_the_numbers_of_its_process(project: Path) -> None:
    with_people(project, rows=300)
    work = {"organization": "default", "pipeline": "people"}
    async with inside(project, **MEMORY) as made:
        await made.put((project / "connections/landing.yaml").read_text())
        await made.put(PIPELINE)
        await made.report("people")
        await made.put(PIPELINE.replace("quarantine", "fail").replace("pipeline: people", "pipeline: fails"))
        await made.ran("fails")
        await made.use_cases.announcer.flush()
        found = await shown(made)

    assert found["pipeline_records_processed_total"] == {of(**work, status="succeeded"): 297}
    assert found["pipeline_records_quarantined_total"] == {of(**work): 3}
    assert found["pipeline_batch_size_count"] == {of(**work, status="succeeded"): 3}
    assert found["pipeline_batch_size_sum"] == {of(**work, status="succeeded"): 300}
    assert found["pipeline_batch_duration_seconds_count"] == {of(**work, status="succeeded"): 3}
    fails = work | {"pipeline": "fails"}
    assert found["pipeline_records_failed_total"] == {of(**fails, status="rejected"): 100}
    assert found["pipeline_runs_total"] == {of(**work, status="succeeded"): 1, of(**fails, status="failed"): 1}
    rule = {"rule": "between", "column": "age"}
    assert found["pipeline_quality_violations_total"][of(**fails, **rule, verdict="fail")] > 0
    assert {name for name in found if not any(name.startswith(known) for known in DECLARED)} == set()


@pytest.mark.clause("IMetricsPage", 1, 2)
@pytest.mark.parametrize("_page", ["prometheus"])
async def test_page_shows_what_was_counted_and_no_more_series_than_there_may_be(_page: str, project: Path) -> None:
    async with inside(project, **MEMORY) as made:
        telemetry = made.use_cases.telemetry
        for number in range(1500):
            telemetry.count("pipeline.run.retries", 2, {"organization": "o", "pipeline": f'p"{number}\n\\'})
        telemetry.observe("http.request.duration", 0.003, {"route": "/v1/runs", "method": "GET"})
        telemetry.count("nobody.declared", 1, {})
        found = await shown(made)

    assert set(found) == {
        "pipeline_run_retries_total",
        *(f"http_request_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    }
    retries = found["pipeline_run_retries_total"]
    assert (len(retries), retries[of(organization="other", pipeline="other")]) == (1001, 1000)
    assert retries[of(organization="o", pipeline='p"7\n\\')] == 2
    buckets = found["http_request_duration_seconds_bucket"]
    assert buckets[of(route="/v1/runs", method="GET", le="0.001")] == 0
    assert buckets[of(route="/v1/runs", method="GET", le="0.005")] == 1
    assert buckets[of(route="/v1/runs", method="GET", le="+Inf")] == 1


async def test_requests_are_counted_by_their_routes(project: Path) -> None:
    async with inside(project, **MEMORY) as made:
        app = create_app(made.use_cases, title="t", max_body_bytes=1000, is_local=True)
        assert (await asked(app, {"host": "localhost"}))[0] == 200
        status, content = await asked(app, {"host": "localhost"})
        found = series(content)

    assert status == 200
    assert found["http_requests_total"] == {of(route="/metrics", method="GET", status="2xx"): 1}


HOME = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize("make", ["api", "probes"])
@pytest.mark.parametrize(
    ("is_local", "headers", "status"),
    [
        (True, HOME, 200),
        (True, {"host": "[::1]:8080"}, 200),
        (False, HOME, 401),
        (True, {"host": "evil.example"}, 401),
        (True, {}, 401),
        (True, {**HOME, "x-forwarded-for": "10.0.0.1"}, 401),
        (True, {**HOME, "forwarded": "for=10.0.0.1"}, 401),
        (False, {**HOME, "authorization": "Bearer KEY"}, 200),
        (True, {"host": "evil.example", "authorization": "Bearer KEY"}, 200),
        (False, {"host": "pod-7", "authorization": "Bearer nonsense"}, 401),
    ],
)
async def test_only_this_machine_asks_without_a_key(
    make: str, is_local: bool, headers: dict[str, str], status: int, project: Path
) -> None:
    async with inside(project, **MEMORY) as made:
        key = await made.use_cases.authenticator.create_administrator("default", "me")
        if make == "api":
            app = create_app(made.use_cases, title="t", max_body_bytes=1000, is_local=is_local)
        else:
            app = create_probes(made.use_cases, is_local=is_local)
        sent = {name: value.replace("KEY", key) for name, value in headers.items()}
        answered, content = await asked(app, sent)

    assert answered == status
    assert (b"code" in content) == (status != 200)


@pytest.mark.parametrize("make", ["api", "probes"])
async def test_who_comes_through_a_proxy_is_not_at_home(make: str, project: Path) -> None:
    named = ("X-Forwarded-Host", "x-forwarded-proto", "X-Real-IP", "Via", "CF-Connecting-IP", "True-Client-IP",
             "X-Client-IP", "X-Envoy-External-Address", "X-Original-URL", "CDN-Loop", "Client-IP")  # fmt: skip
    async with inside(project, **MEMORY) as made:
        app = create_app(made.use_cases, title="t", max_body_bytes=1000, is_local=True)
        app = app if make == "api" else create_probes(made.use_cases, is_local=True)
        through = {name: (await asked(app, {**HOME, name.lower(): "1"}))[0] for name in named}
        silent = (await asked(app, HOME, version="1.0"))[0]  # As nginx, which is told nothing else.
        scraped = {**HOME, "x-request-id": "1", "x-prometheus-scrape-timeout-seconds": "10"}
        at_home = (await asked(app, scraped))[0]

    assert through == dict.fromkeys(named, 401)
    assert (silent, at_home) == (401, 200)


async def test_whoever_asks_while_a_page_is_written_has_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    page, written, go = PrometheusPage(Numbers()), list[int](), threading.Event()

    def write() -> bytes:
        written.append(1)
        assert go.wait(30)
        return b"page"

    monkeypatch.setattr(page, "_written", write)
    asking = [asyncio.create_task(page.text()) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # Who leaves takes nobody's page away.
    go.set()
    assert await asyncio.gather(*asking[1:]) == [b"page"] * 49
    assert len(written) == 1
    assert await page.text() == b"page"
    assert len(written) == 2


@pytest.mark.parametrize("role", list(Role))
async def test_whoever_operates_reads_metrics(role: Role, project: Path) -> None:
    reader = Principal("someone", ME.organization, frozenset({role}))
    async with inside(project, **MEMORY) as made:
        if Action.READ_METRICS in PERMISSIONS[role]:
            await made.use_cases.metrics.read(reader)
        else:
            with pytest.raises(PermissionDeniedError):
                await made.use_cases.metrics.read(reader)
    assert (Action.READ_METRICS in PERMISSIONS[role]) == (role is Role.PLATFORM_ADMIN)


def test_server_of_this_machine_shows_its_metrics_to_it(project: Path) -> None:
    with serving(project, **MEMORY) as server:
        server.call("GET", "/v1/runs")
        found = server.call("GET", "/metrics", key="")

    assert (found.status, found.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    shown = series(found.body)
    assert shown["http_requests_total"][of(route="/v1/runs", method="GET", status="2xx")] == 1


async def test_what_nobody_tells_is_looked_at(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_LAG_EVERY_SECONDS", 0.02)
    with_people(project, rows=300)
    work = {"organization": "default", "pipeline": "people"}
    async with inside(project, **MEMORY) as made:
        await made.put((project / "connections/landing.yaml").read_text())
        await made.put(PIPELINE)
        await made.report("people")
    quick = {"HEADRACE_METRICS__INTERVAL_SECONDS": "0.05", "HEADRACE_HEALTH__INTERVAL_SECONDS": "0.05"}
    async with inside(project, **MEMORY, **quick) as made:  # Another process, which has heard of no run.
        await made.use_cases.launcher.launch(ME, TriggerRun("people"))
        watching = [
            asyncio.create_task(made.use_cases.measurer.watch()),
            asyncio.create_task(made.use_cases.health.watch()),
        ]
        found = await shown_once(made, lambda page: {"health_part", "pipeline_queue_depth"} <= set(page))
        await made.use_cases.controller.cancel(ME, (await made.use_cases.history.runs(ME, limit=1)).items[0].id)
        await shown_once(made, lambda page: page["pipeline_queue_depth"] == {of(**work): 0})
        await made.use_cases.catalog.delete(ME, "pipeline", "people")
        gone = await shown_once(made, lambda page: "pipeline_freshness_seconds" not in page)
        made.use_cases.life.begin_shutdown()
        await asyncio.gather(*watching)

    assert found["pipeline_queue_depth"] == {of(**work): 1}
    assert 0 <= found["pipeline_queue_age_seconds"][of(**work)] < 60
    assert 0 < found["pipeline_freshness_seconds"][of(**work)] < 60
    assert found["health_part"][of(part="records")] == 1
    assert found["records_connections"][of(state="most")] == 15
    assert "process_loop_lag_seconds_count" in gone


async def shown_once(made: Inside, is_there: Callable[[Any], bool]) -> Any:
    """The page, once it shows what is looked for."""
    async with asyncio.timeout(20):
        while not is_there(found := await shown(made)):
            await asyncio.sleep(0.02)
    return found
