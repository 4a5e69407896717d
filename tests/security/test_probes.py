"""Probes need no key, so there are only so many of them at a time, each has one answer, and none looks up a key."""

import asyncio
import os
import resource
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from application.operations.health import Life
from domain.errors import UnauthenticatedError
from entrypoints.http import entrance as entrance_module
from entrypoints.http.hosts import AllowedHosts
from entrypoints.http.middleware import RequestContext
from entrypoints.http.transport import BoundedProtocol, TransportLimits, protocol_within
from entrypoints.http.turnstile import Turnstile
from infrastructure.observability.telemetry import ContextTelemetry
from tests.e2e.api import serving
from tests.security.raw_connections import all_answered, listening

LIMIT, WAITING = 8, 60
HEALTH = b"GET /health HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n"
READY = HEALTH.replace(b"/health", b"/ready")
METRICS = HEALTH.replace(b"/health", b"/metrics")
WITH_KEY = METRICS.replace(b"\r\n\r\n", b"\r\naUTHORIZATION: Bearer hr_x\r\n\r\n")


class _Held:
    """An application that answers no request before it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.is_over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await self.is_over.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def _nothing(*_: Any) -> Any:
    """Receive, or send, nothing."""


def _kind() -> type[BoundedProtocol]:
    return protocol_within(TransportLimits(connections=LIMIT))


def _sent(listener: socket.socket, stack: ExitStack, content: bytes) -> socket.socket:
    client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
    client.setblocking(False)
    client.send(content)
    return client


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.mark.line("36")
@pytest.mark.parametrize(
    ("request_", "beyond"),
    [(HEALTH, 32), (READY, 16), (METRICS, 16), (WITH_KEY, 0)],
    ids=["health", "ready", "metrics", "key"],
)
async def test_there_are_only_so_many_connections_whatever_they_ask(
    request_: bytes, beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their requests are there before they are accepted; each beyond what there may be is told so."""
    monkeypatch.setattr(entrance_module, "MOST_WAITING", WAITING)
    app, most = _Held(), 0
    with socket.create_server(("127.0.0.1", 0), backlog=400) as listener, ExitStack() as stack:
        clients = [_sent(listener, stack, request_) for _ in range(300)]
        before = len(os.listdir("/proc/self/fd"))

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(os.listdir("/proc/self/fd")) - before)
                await asyncio.sleep(0)

        async with listening(app, _kind(), listener) as server:
            watching = asyncio.create_task(watch())
            await _until(lambda: len(app.begun) == LIMIT + beyond)
            await asyncio.sleep(0.5)
            assert len(app.begun) == len(server.server_state.connections) == LIMIT + beyond
            watching.cancel()
            app.is_over.set()
            for one in list(server.server_state.connections):
                one.shutdown()  # Those within the limit would be kept.
            answers = [(await all_answered(client))[9:12] for client in clients]
    assert answers.count(b"200") == LIMIT + beyond
    assert answers.count(b"503") == 300 - LIMIT - beyond
    assert most <= LIMIT + beyond + WAITING + 5


@pytest.mark.line("36")
async def test_a_probe_beyond_the_limit_has_one_answer_and_nothing_behind_it_is_kept() -> None:
    app = _Held()
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        async with listening(app, _kind(), listener) as server:
            for _ in range(LIMIT):
                _sent(listener, stack, HEALTH.replace(b"/health", b"/work"))
            await _until(lambda: len(app.begun) == LIMIT)
            for behind in (b"", HEALTH, b"POST /v1/x HTTP/1.1\r\nX-P: " + b"p" * 100_000):
                app.begun.clear()
                client = _sent(listener, stack, READY + behind)
                await _until(lambda: app.begun)
                client.send(HEALTH)
                await asyncio.sleep(0.05)
                kept = [one for one in server.server_state.connections if vars(one)["_is_beyond"]]
                assert [vars(one)["_unparsed"] for one in kept] == [b""]
                app.is_over.set()
                found = await all_answered(client)
                app.is_over.clear()
                assert app.begun == ["/ready"]
                assert found.count(b"HTTP/1.1 200 ") == 1
                assert b"connection: close" in found


@pytest.mark.line("36")
async def test_whether_the_process_lives_is_told_while_all_who_ask_more_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/health":
            await held(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    held = _Held()
    with socket.create_server(("127.0.0.1", 0), backlog=400) as listener, ExitStack() as stack:
        for _ in range(100):
            _sent(listener, stack, READY)
        async with listening(app, _kind(), listener):
            await _until(lambda: len(held.begun) == LIMIT + 16)
            for _ in range(3):
                assert (await all_answered(_sent(listener, stack, HEALTH))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.line("36")
async def test_who_asks_for_numbers_with_a_key_stands_at_the_turnstile() -> None:
    app = _Held()
    turnstile = Turnstile(app, inside=0, wait_seconds=30)
    key = [(b"authorization", b"Bearer hr_x")]

    scopes: list[Any] = [
        {"type": "http", "path": path, "headers": headers}
        for path in ("/health", "/ready", "/metrics")
        for headers in ([], key)
    ]
    tasks = [asyncio.create_task(turnstile(scope, _nothing, _nothing)) for scope in scopes]
    await asyncio.sleep(0.01)
    assert app.begun == ["/health", "/health", "/ready", "/ready", "/metrics"]
    app.is_over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.line("36")
@pytest.mark.invariant("X4")
@pytest.mark.parametrize(("path", "asked"), [("/health", 0), ("/ready", 0), ("/metrics", 0), ("/v1/runs", 1)])
async def test_no_key_is_looked_up_to_follow_a_probe(path: str, asked: int) -> None:
    keys: list[str] = []

    class Exporting(ContextTelemetry):
        @property
        def is_exporting(self) -> bool:
            return True

    class Authenticator:
        async def principal_of(self, key: str) -> None:
            keys.append(key)
            raise UnauthenticatedError("none")

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    app = _Held()
    app.is_over.set()
    cases: Any = SimpleNamespace(life=Life(), telemetry=Exporting(), authenticator=Authenticator())
    context = RequestContext(app, use_cases=cases, max_body_bytes=10, hosts=AllowedHosts())
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [(b"host", b"localhost"), (b"traceparent", trace), (b"authorization", b"Bearer hr_x")]
    scope = {"type": "http", "path": path, "method": "GET", "query_string": b"", "headers": headers}

    await context(scope, _nothing, send)

    assert sent[0]["status"] == 200
    assert len(keys) == asked


@pytest.mark.line("36")
def test_a_flood_of_probes_takes_so_many_descriptors_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as stack:
            server = stack.enter_context(
                serving(tmp_path, HEADRACE_STORE__KIND="memory", HEADRACE_HTTP__MAX_CONNECTIONS="8")
            )
            place, opened = ("127.0.0.1", int(server.url.rpartition(":")[2])), f"/proc/{server.process.pid}/fd"
            before, most = len(os.listdir(opened)), 0
            for _ in range(900):
                client = stack.enter_context(socket.create_connection(place, timeout=10))
                with suppress(ConnectionError):
                    client.sendall(READY * 3)
                most = max(most, len(os.listdir(opened)))
            assert server.call("GET", "/health").status == 200
        assert most - before <= 8 + 32 + 512 + 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
