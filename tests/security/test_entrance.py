"""Probes are answered however many connections and requests there are, and these are let in at a pace."""

import asyncio
import re
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request

from application.operations.health import Life
from domain.identity.principal import Principal
from entrypoints.documents import yaml_text
from entrypoints.http import entrance as entrance_module
from entrypoints.http.asking import Asking
from entrypoints.http.entrance import Entrance
from entrypoints.http.hosts import AllowedHosts
from entrypoints.http.leaving import Places
from entrypoints.http.middleware import RequestContext
from entrypoints.http.server import Server
from entrypoints.http.transport import TransportLimits, protocol_within
from entrypoints.http.turnstile import IS_BUSY, Turnstile
from infrastructure.observability.telemetry import ContextTelemetry

WORK = b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n"
PROBE = b"GET /health HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n"


def _connected(listener: socket.socket) -> socket.socket:
    client = socket.create_connection(listener.getsockname()[:2])
    client.setblocking(False)
    return client


async def _answer(client: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(client, 4096)


@pytest.mark.line("36")
async def test_a_probe_does_not_stand_behind_the_connections_that_came_before_it() -> None:
    made: list[bool] = []

    def protocol(asking: Asking) -> asyncio.Protocol:
        made.append(asking is not Asking.WORK)
        return asyncio.Protocol()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener, ExitStack() as stack:
        for content in (*[WORK] * 100, b"", b"GET /health", b"GET /healthy HTTP/1.1\r\n\r\n", PROBE):
            stack.enter_context(_connected(listener)).sendall(content)
        late = stack.enter_context(_connected(listener))
        entrance = Entrance(listener, protocol, lambda _: True, b"")
        while not made:
            await asyncio.sleep(0)
        assert made[0]
        assert len(made) < 10  # And the loop turns before all of them are in.
        late.sendall(PROBE)  # It was accepted before it said what it wants.
        while made.count(True) < 2:
            await asyncio.sleep(0)
        assert len(made) < 50
        entrance.close()
        await entrance.wait_closed()
        while len(made) < 105:
            await asyncio.sleep(0)
        assert made.count(True) == 2


@pytest.mark.line("36")
async def test_so_many_connections_wait_and_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a descriptor, of which others have need too."""
    monkeypatch.setattr(entrance_module, "MOST_WAITING", 20)
    made: list[bool] = []

    def protocol(asking: Asking) -> asyncio.Protocol:
        made.append(asking is not Asking.WORK)
        return asyncio.Protocol()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener, ExitStack() as stack:
        clients = [stack.enter_context(_connected(listener)) for _ in range(100)]
        for client in clients:
            client.sendall(WORK)
        entrance = Entrance(listener, protocol, lambda _: True, b"busy")
        assert await _answer(clients[4]) == b"busy"
        entrance.close()
        await entrance.wait_closed()
        await _turns(10)
        assert 4 <= len(made) <= 24


@pytest.mark.line("36")
async def test_where_all_connections_are_in_work_a_further_one_is_told_so_and_a_probe_is_answered() -> None:
    at_work = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/work":
            await at_work.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        limits = TransportLimits(connections=8)
        server = Server(uvicorn.Config(app, lifespan="off", log_config=None, http=protocol_within(limits)))
        serving = asyncio.create_task(server.serve([listener]))
        working = [stack.enter_context(_connected(listener)) for _ in range(8)]
        for client in working:
            client.sendall(WORK)
        while len(server.server_state.tasks) < 8:
            await asyncio.sleep(0.01)

        further, early, late = (stack.enter_context(_connected(listener)) for _ in range(3))
        further.sendall(WORK)
        early.sendall(PROBE)
        assert (await _answer(early)).startswith(b"HTTP/1.1 200 ")
        late.sendall(PROBE)  # It was accepted before it said what it wants.
        assert (await _answer(late)).startswith(b"HTTP/1.1 200 ")
        told = await _answer(further)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"server.connections" in told
        assert b"Retry-After: 5\r\n" in told

        at_work.set()
        assert {(await _answer(client))[:13] for client in working} == {b"HTTP/1.1 200 "}
        server.force_exit = server.should_exit = True
        await serving


class _Inside:
    """An application that tells how many requests are inside, and lets one out when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.is_over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append("busy" if scope.get("state", {}).get(IS_BUSY) else scope["path"])
        if scope["path"] == "/body":
            await receive()
        await self.is_over.wait()


async def _never() -> Any:
    await asyncio.Event().wait()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.line("36")
async def test_requests_enter_one_a_turn_and_so_many_at_a_time_and_probes_pass_by() -> None:
    app = _Inside()
    turnstile = Turnstile(app, inside=20, wait_seconds=30)
    tasks: list[asyncio.Task[None]] = []

    def ask(path: str) -> None:
        tasks.append(asyncio.create_task(turnstile({"type": "http", "path": path}, _never, _never)))

    for _ in range(100):
        ask("/work")
    await _turns(4)
    assert 1 <= len(app.begun) <= 4
    ask("/health")
    await _turns(1)
    assert app.begun[-1] == "/health"
    await _turns(300)
    assert app.begun.count("/work") == 20
    for task in tasks[30:50]:  # Whoever leaves while waiting takes no place, and keeps none.
        task.cancel()
    app.is_over.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert app.begun.count("/work") == 80


@pytest.mark.line("36")
async def test_who_is_slow_to_send_a_body_keeps_nobody_out_and_who_waited_for_long_is_told() -> None:
    app = _Inside()
    turnstile = Turnstile(app, inside=2, wait_seconds=0.05)
    paths = [*["/body"] * 10, *["/work"] * 3]
    tasks = [asyncio.create_task(turnstile({"type": "http", "path": path}, _never, _never)) for path in paths]
    await asyncio.sleep(0.2)
    assert app.begun == [*["/body"] * 10, "/work", "/work", "busy"]
    app.is_over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.line("36")
@pytest.mark.parametrize("where", ["body", "work", "waiting", "answering"])
async def test_a_request_that_a_server_cancels_at_its_end_is_told_so_and_is_no_error(where: str) -> None:
    sent: list[Any] = []
    life = Life()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if where == "answering":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await (receive() if where == "body" else asyncio.Event().wait())

    async def send(message: Any) -> None:
        sent.append(message)

    cases: Any = SimpleNamespace(life=life, telemetry=ContextTelemetry())
    context = RequestContext(app, use_cases=cases, max_body_bytes=10, hosts=AllowedHosts())
    turnstile = Turnstile(context, inside=0 if where == "waiting" else 1, wait_seconds=30)
    scope = {"type": "http", "path": "/x", "method": "GET", "query_string": b"", "headers": [(b"host", b"localhost")]}
    task = asyncio.create_task(turnstile(scope, _never, send))
    await _turns(3)

    life.begin_shutdown()
    task.cancel()
    await task

    started = [message["status"] for message in sent if message["type"] == "http.response.start"]
    assert started == [200 if where == "answering" else 503]
    code = {"waiting": b"server.busy", "answering": b""}.get(where, b"server.stopping")
    assert code in b"".join(message.get("body", b"") for message in sent)


@pytest.mark.line("36")
async def test_pages_of_one_caller_that_wait_keep_no_request_of_another_out() -> None:
    places, begun, is_over = Places(), list[str](), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        if scope["path"] == "/page":
            async with places.one(Request(scope, receive), Principal("a", "o", frozenset())):
                await is_over.wait()

    turnstile = Turnstile(app, inside=2, wait_seconds=30)
    paths = [*["/page"] * 10, "/other"]
    scopes: list[Any] = [{"type": "http", "path": path, "headers": []} for path in paths]
    tasks = [asyncio.create_task(turnstile(scope, _never, _never)) for scope in scopes]
    await _turns(200)
    assert begun == paths
    is_over.set()
    await asyncio.gather(*tasks)


@pytest.mark.line("4")
@pytest.mark.parametrize("piece", ["a", "é", "\\n", "a\\n", "\\", "1", " ", "x" * 5000 + '",  "'])
def test_no_step_of_the_scan_of_json_is_long(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads, the loop's too, have no turn before a match ends."""
    longest = 0

    class Watched:
        def __init__(self, pattern: re.Pattern[str]) -> None:
            self._pattern = pattern

        def match(self, text: str, at: int) -> re.Match[str] | None:
            nonlocal longest
            found = self._pattern.match(text, at)
            longest = max(longest, found.end() - at if found else len(text) - at)
            return found

    for name in ("_JSON_PARTS", "_IN_JSON_STRING"):
        monkeypatch.setattr(yaml_text, name, Watched(vars(yaml_text)[name]))
    size = 3 * 1024 * 1024
    limits = yaml_text.DocumentLimits(document_bytes=4 * size, document_nodes=10**9)
    for before in ("[", '["'):
        yaml_text.check_json_shape(before + piece * (size // len(piece)), "body", limits)
    assert 0 < longest <= 2**20
