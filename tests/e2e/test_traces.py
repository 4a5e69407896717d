"""Traces as a user has them: of requests, commands and libraries; with strangers, and with OpenTelemetry left alone."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
import urllib3

from domain.errors import NotFoundError
from entrypoints.client.in_process import InProcessClient
from entrypoints.client.server import RemoteServer
from entrypoints.composition.container import build_container
from entrypoints.composition.telemetry import UNTRACED, otel_options, traceable
from entrypoints.http.app import create_app
from infrastructure.settings.sources import load_settings
from tests.collector import Collector, collecting, frozen
from tests.e2e.api import serving
from tests.e2e.inside import ME, Inside, inside

GIVEN = f"00-{'a' * 32}-{'b' * 16}-01"
MEMORY = {"HEADRACE_STORE__KIND": "memory"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


async def asked(made: Inside, path: str, **headers: str) -> tuple[int, Mapping[str, str]]:
    """Send one request to the application, and give the status and the headers of its answer."""
    app = create_app(made.use_cases, title="t", max_body_bytes=1000)
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    given = [(b"host", b"localhost"), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": given, "scheme": "http"}
    await app(scope, receive, send)
    return said[0]["status"], {name.decode().lower(): value.decode() for name, value in said[0]["headers"]}


@pytest.mark.parametrize(
    ("caller", "is_kept"), [("key", True), ("no key", False), ("wrong key", False), ("two keys", False)]
)
async def test_caller_with_a_key_has_a_trace_kept_and_a_stranger_has_not(
    caller: str, is_kept: bool, project: Path, collector: Collector
) -> None:
    async with inside(project, **MEMORY, **collector.environment(OTEL_SAMPLING_RATE="0")) as made:
        key = await made.use_cases.authenticator.create_administrator("default", "me")
        sent = {"key": key, "wrong key": key[:-1] + ("a" if key[-1] != "a" else "b")}.get(caller)
        headers = {"authorization": f"Bearer {sent}"} if sent else {}
        status, answered = await asked(made, "/v1/runs", traceparent=GIVEN, **headers)
        _, unasked = await asked(made, "/v1/runs", authorization=f"Bearer {key}")

    assert status == (200 if caller == "key" else 401)
    _, trace_id, span_id, flags = answered["traceparent"].split("-")
    assert (trace_id, flags) == ("a" * 32, "01" if is_kept else "00")
    assert unasked["traceparent"].endswith("-00")
    names = [span.name for span in collector.spans if span.scope == "headrace"]
    assert names == (["RunHistory.runs", "GET /v1/runs"] if is_kept else [])
    if is_kept:
        request = collector.one("GET /v1/runs")
        assert (request.span_id, request.attributes["http.response.status_code"]) == (span_id, 200)


async def test_line_of_a_key_that_is_looked_at_early_bears_the_request(project: Path, collector: Collector) -> None:
    async with inside(project, **MEMORY, **collector.environment()) as made:
        key = await made.use_cases.authenticator.create_administrator("default", "me")
        with sqlite3.connect(project / ".headrace/records.db") as records:
            records.execute("UPDATE api_keys SET roles = '[\"unheard-of\"]'")
        records.close()
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
            await asked(made, "/v1/runs", traceparent=GIVEN, authorization=f"Bearer {key}", **{"x-request-id": "mine"})

    told = [line["correlation_id"] for line in lines if line["event"] == "key.role_unknown"]
    assert told == ["mine"]


async def test_traceparent_is_answered_where_nothing_is_sent_and_probes_have_none(project: Path) -> None:
    async with inside(project, **MEMORY) as made:
        _, answered = await asked(made, "/v1/runs", traceparent=GIVEN)
        _, probed = await asked(made, "/health", traceparent=GIVEN)
        _, odd = await asked(made, "/v1/runs", traceparent="00-nonsense")

    assert answered["traceparent"].split("-")[1] == "a" * 32
    assert "traceparent" not in probed
    assert len(odd["traceparent"]) == 55


async def test_every_use_case_is_a_span_or_says_why_not(project: Path, collector: Collector) -> None:
    async with inside(project, **MEMORY, **collector.environment()) as made:
        found = {f"{part}.{name}": getattr(owner, name) for part, name, owner in traceable(made.use_cases)}
        spans = {name for name, method in found.items() if hasattr(method, "__wrapped__")}
        parts = {field.name for field in fields(made.use_cases)}

    assert len(found) > 40
    exempt = {name for name in found if name in UNTRACED or name.partition(".")[0] in UNTRACED}
    assert set(found) - spans == exempt
    assert set(UNTRACED) <= parts | set(found)


async def test_statements_of_the_records_are_spans_of_their_use_case(project: Path, collector: Collector) -> None:
    async with inside(project, **MEMORY, **collector.environment()) as made:
        key = await made.use_cases.authenticator.create_administrator("default", "me")
        await asked(made, "/v1/pipelines/orders_of_ada", authorization=f"Bearer {key}")

    use_case = collector.one("Catalog.get")
    within = [span for span in collector.spans if span.parent_id == use_case.span_id]
    statements = [str(span.attributes["db.statement"]) for span in within if "db.statement" in span.attributes]
    assert any(statement.startswith("SELECT") for statement in statements)
    assert "orders_of_ada" not in str(statements)  # Values are bound.
    assert use_case.attributes["error.type"] == "pipeline.not_found"


@contextmanager
def listening() -> Iterator[tuple[str, list[Mapping[str, str]]]]:
    """A server that keeps the headers of what it is asked."""
    found: list[Mapping[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", found
        server.shutdown()


async def test_calls_over_http_are_spans_without_what_is_secret_and_hand_the_trace_on(
    project: Path, collector: Collector
) -> None:
    async with inside(project, **MEMORY, **collector.environment()) as made:
        with listening() as (address, found), made.use_cases.telemetry.span("work"):
            trace = made.use_cases.telemetry.current_trace() or ""
            await asyncio.to_thread(urllib3.request, "GET", f"http://me:hunter2@{address}/x?token=hunter2")

    call = next(span for span in collector.spans if span.scope == "opentelemetry.instrumentation.urllib3")
    assert call.parent_id == collector.one("work").span_id
    assert call.attributes["http.url"] == f"http://{address}/x"
    assert found[0]["traceparent"].split("-")[1] == trace.split("-")[1]
    assert not collector.says("hunter2")


def test_command_belongs_to_the_trace_of_its_environment(
    project: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", GIVEN)
    settings = load_settings(root=project, environment={**MEMORY, **collector.environment()}).settings
    with InProcessClient(lambda: build_container(settings, project), ME) as client:
        client.runs(pipeline=None, limit=1, cursor=None)
        client.documents("pipeline")
        with pytest.raises(NotFoundError):
            client.document("pipeline", "orders")
    with listening() as (address, found):
        RemoteServer(f"http://{address}", 1, "key").request("GET", "/v1/runs")
        monkeypatch.setenv("TRACEPARENT", f"{GIVEN}\r\nX-More: 1")
        RemoteServer(f"http://{address}", 1, "key").request("GET", "/v1/runs")

    command = collector.one("command")
    assert (command.trace_id, command.parent_id) == ("a" * 32, "b" * 16)
    assert command.attributes["error.type"] == "pipeline.not_found"
    assert collector.one("RunHistory.runs").parent_id == collector.one("Catalog.page").parent_id == command.span_id
    assert [headers.get("traceparent") for headers in found] == [GIVEN, None]


OFF: dict[str, dict[str, str]] = {
    "nothing": {},
    "switched off": {"OTEL_ENABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
    "disabled": {"OTEL_SDK_DISABLED": "true", "OTEL_ENABLED": "true"},
}


def test_opentelemetry_is_not_imported_where_it_does_not_act(project: Path) -> None:
    code = f"""
import asyncio, sys
from pathlib import Path
from entrypoints.cli.main import app

def say(*names):
    print(*sorted(name for name in sys.modules if name.startswith(names)), file=sys.stderr)

try:
    app(["--help"])
except SystemExit:
    say("opentelemetry", "requests", "grpc", "prometheus_client")
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.http.app import create_app
from infrastructure.settings.sources import load_settings

async def opened(container):
    async with running(container, with_store=False) as use_cases:
        create_app(use_cases, title="t", max_body_bytes=1)
        await use_cases.metrics.read(None)

for off in {list(OFF.values())}:
    container = build_container(load_settings(root=Path.cwd(), environment={MEMORY} | off).settings, Path.cwd())
    container.use_cases.everything()
asyncio.run(opened(container))
# FastAPI imports the interfaces for itself, which do nothing alone.
say("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation", "opentelemetry.proto", "requests", "grpc")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("given", "is_on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_ENABLED": "true"}, True),
        *((values, False) for name, values in OFF.items() if name != "nothing"),
    ],
)
def test_endpoint_alone_switches_it_on_and_each_switch_off(given: dict[str, str], is_on: bool, tmp_path: Path) -> None:
    assert load_settings(root=tmp_path, environment=given).settings.telemetry.is_on is is_on


def test_names_of_opentelemetry_act(tmp_path: Path) -> None:
    given = {
        "APP_NAME": "shop",
        "ENVIRONMENT": "staging",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:key@c:4318/base/?x=1",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b,x=y",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_RESOURCE_ATTRIBUTES": "service.namespace=data,deployment.environment.name=blue",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_BSP_MAX_QUEUE_SIZE": "7",
        "HEADRACE_QUEUE__KIND": "redis",
        "REDIS_HOST": "r",
    }
    found = otel_options(load_settings(root=tmp_path, environment=given).settings, "me")

    assert (found.rate, found.by_parent, found.queue_size, found.timeout_seconds) == (0.25, True, 7, 2.5)
    assert found.headers == {"api-key": "a b", "x": "y"}
    assert found.http_endpoint("traces") == "http://me:key@c:4318/base/v1/traces?x=1"
    assert (found.grpc_endpoint, found.shown_endpoint) == ("http://c:4318", "http://c:4318")
    assert found.instrumented == ("sqlalchemy", "urllib3", "redis")
    assert found.resource["service.name"] == "shop"
    assert found.resource["deployment.environment.name"] == "blue"
    assert found.resource["service.namespace"] == "data"
    assert found.resource["service.instance.id"] == "me"
    for sampler, expected in {"always_off": (0.0, False), "parentbased_always_on": (1.0, True)}.items():
        chosen = load_settings(root=tmp_path, environment={**given, "OTEL_TRACES_SAMPLER": sampler}).settings.telemetry
        assert (chosen.rate, chosen.by_parent) == expected
    named = load_settings(root=tmp_path, environment={**given, "OTEL_SERVICE_NAME": "orders"}).settings
    assert otel_options(named, "me").resource["service.name"] == "orders"


def test_frozen_collector_keeps_no_request_and_no_end_of_a_process_waiting(project: Path) -> None:
    with frozen() as collector, serving(project, **collector.environment(OTEL_BSP_MAX_QUEUE_SIZE="20")) as server:
        started = time.monotonic()
        for _ in range(20):
            assert server.call("GET", "/v1/runs").status == 200
        assert time.monotonic() - started < 5
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 6  # It lingers for 0.6 s, and flushes for one.
    said = (project / "up.log").read_text()
    assert ("telemetry.left" in said, "Traceback" in said, "nanobind" in said) == (True, False, False)
