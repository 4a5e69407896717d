"""What a caller who may only read, or has no key, makes the server do by asking often or for much, and by not taking
the answer.
"""

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from application.answers import AnswerLimits
from application.operations.health import HealthMonitor, Life, PartHealth
from application.runs.showing import said_to
from domain.errors import UnavailableError
from domain.identity.principal import Principal, Role
from entrypoints.http.app import create_app
from entrypoints.http.leaving import Places
from entrypoints.http.server import Server
from entrypoints.http.transport import TransportLimits, protocol_within
from tests.e2e.api import serving
from tests.fakes.clock import FakeClock
from tests.security.keys import key_of

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"x" * (16 * 1024 * 1024)
"""More than the buffers of two sockets take."""


async def _large(scope: Any, receive: Any, send: Any) -> None:
    content = b"well" if scope["path"] == "/health" else ANSWER
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def _listening(limits: TransportLimits) -> Iterator[int]:
    """Serve `_large` in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(_large, lifespan="off", log_config=None, access_log=False, http=protocol_within(limits))
        server = Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.force_exit = server.should_exit = True
            thread.join()


def _dialed(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    return connection


def _read(connection: socket.socket) -> int:
    size = 0
    while chunk := connection.recv(1024 * 1024):
        size += len(chunk)
    return size


@pytest.mark.line("36")
@pytest.mark.parametrize("in_a_row", [1, 2, 15])
def test_others_are_served_while_nobody_takes_the_answers_there_are(in_a_row: int) -> None:
    with _listening(TransportLimits(connections=8)) as port, ExitStack() as stack:
        for _ in range(8):
            slow = stack.enter_context(_dialed(port))
            slow.sendall(GET * in_a_row)
            assert slow.recv(1)  # The answer has begun, and the rest of it waits.
        for _ in range(3):
            with _dialed(port) as other:
                other.sendall(GET.replace(b"/ ", b"/health ").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                assert other.recv(1024).startswith(b"HTTP/1.1 200 ")


@pytest.mark.line("36")
def test_who_takes_a_large_answer_slowly_has_all_of_it() -> None:
    with _listening(TransportLimits(connections=8)) as port, _dialed(port) as slow, ExitStack() as stack:
        slow.sendall(GET + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        for _ in range(7):
            stack.enter_context(_dialed(port))
        assert _read(slow) > 2 * len(ANSWER)


@pytest.mark.line("36")
def test_what_stands_behind_an_answer_waits_unparsed_and_is_answered_in_its_turn() -> None:
    """A head that is parsed takes seven times the room of its bytes."""
    head = GET.replace(b"/ ", b"/health?" + b"%F0%9F%98%80" * 1000 + b" ")
    last = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with _listening(TransportLimits(connections=8)) as port, _dialed(port) as slow:
        slow.sendall(GET + head * 9 + last)
        assert slow.recv(1)
        with _dialed(port) as other:
            other.sendall(last)
            assert other.recv(1024).startswith(b"HTTP/1.1 200 ")
        cycles = [each for each in gc.get_objects() if isinstance(each, RequestResponseCycle)]
        mine = [cycle for cycle in cycles if cycle.scope["server"][1] == port]
        assert sum(not cycle.response_complete for cycle in mine) == 1
        found = b""
        while chunk := slow.recv(1024 * 1024):
            found = (found + chunk)[-5_000:]
    assert found.count(b"HTTP/1.1 200 OK") == 10


@pytest.mark.line("36")
def test_answers_that_nobody_takes_have_so_much_memory_together() -> None:
    """Sockets take some of each; a mere hundred connections would hold gigabytes."""
    limits = TransportLimits(untaken_bytes=2 * len(ANSWER) + 1024 * 1024)
    with _listening(limits) as port, ExitStack() as stack:
        slow = [stack.enter_context(_dialed(port)) for _ in range(5)]
        for connection in slow:
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert connection.recv(1)
        whole = [_taken(connection) > len(ANSWER) for connection in slow]
    assert whole == [False] * 3 + [True] * 2


def _taken(connection: socket.socket) -> int:
    """The bytes that come of an answer before it ends or is broken off."""
    size = 0
    with suppress(ConnectionResetError):
        while chunk := connection.recv(1024 * 1024):
            size += len(chunk)
    return size


@pytest.mark.line("36")
async def test_however_many_ask_whether_it_is_ready_the_parts_are_asked_once_at_a_time() -> None:
    asked = 0

    async def part() -> PartHealth:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.02)
        return PartHealth.of(f"trouble {asked}")

    life = Life()
    life.started()
    monitor = HealthMonitor(life, FakeClock(), timedelta(seconds=5), timedelta(seconds=30), {"part": part})
    waiting = [asyncio.create_task(monitor.readiness()) for _ in range(300)]
    await asyncio.sleep(0)
    waiting[0].cancel()

    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert {answer.parts["part"].detail for answer in answers[1:] if not isinstance(answer, BaseException)} == {
        "trouble 1"
    }
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 1
    assert (await monitor.readiness()).parts["part"].detail == "trouble 2"  # Each answer is of now.


def _asking(messages: "asyncio.Queue[Any]") -> Request:
    async def receive() -> Any:
        return await messages.get()

    return Request({"type": "http", "method": "GET", "headers": []}, receive)


def _reader(name: str) -> Principal:
    return Principal(name, "default", frozenset({Role.VIEWER}))


@pytest.mark.line("36")
async def test_pages_are_read_for_who_is_there_and_by_turns_of_callers() -> None:
    places, read = Places(), list[str]()
    there: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(60)]
    at_once = most = 0

    async def page(name: str, messages: "asyncio.Queue[Any]") -> None:
        nonlocal at_once, most
        async with places.one(_asking(messages), _reader(name)):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            read.append(name)
            at_once -= 1

    many = [asyncio.create_task(page("many", messages)) for messages in there]
    other = asyncio.create_task(page("other", asyncio.Queue()))
    await asyncio.sleep(0)
    for messages in there[3:]:
        messages.put_nowait({"type": "http.disconnect"})
    await other
    assert read.count("many") < 3  # Whoever asks for one does not stand behind the hundreds of another.
    ends = await asyncio.gather(*many, return_exceptions=True)

    assert sum(isinstance(end, ClientDisconnect) for end in ends) == 57
    assert sorted(read) == ["many"] * 3 + ["other"]
    assert most == 2


@pytest.mark.line("36")
async def test_a_caller_waits_for_so_many_pages_and_others_for_theirs() -> None:
    """Each that waits is a connection in work, and when all are, nobody else is served."""
    places, may_go = Places(), asyncio.Event()

    async def page(name: str) -> None:
        async with places.one(_asking(asyncio.Queue()), _reader(name)):
            await may_go.wait()

    asked = [asyncio.create_task(page("many")) for _ in range(600)]
    other = asyncio.create_task(page("other"))
    await asyncio.sleep(0)
    refused = [error for task in asked if task.done() and isinstance(error := task.exception(), UnavailableError)]
    assert len(refused) == 600 - 65
    assert {said_to(_reader("many"), error) for error in refused} == {
        str(refused[0])
    }  # Nothing of it is anybody's data.
    may_go.set()
    await other
    await asyncio.gather(*asked, return_exceptions=True)

    await page("many")  # And later there is room again.


@pytest.mark.line("36")
async def test_the_description_is_written_once() -> None:
    nothing: Any = SimpleNamespace()
    app = create_app(nothing, title="headrace", max_body_bytes=1024)
    (route,) = (route for route in app.routes if getattr(route, "path", "") == "/openapi.json")
    endpoint: Any = route.endpoint  # type: ignore[attr-defined]

    first, second = await endpoint(), await endpoint()

    assert first.body is second.body
    assert json.loads(first.body) == json.loads(json.dumps(app.openapi()))


@pytest.mark.line("36")
def test_a_page_of_documents_is_no_larger_than_any_answer() -> None:
    for most, expected in ((65_536, 65_536), (16 * 1024 * 1024, 1024 * 1024)):
        assert AnswerLimits(answer_bytes=most).page_characters == expected


@pytest.mark.line("36")
def test_an_answer_of_large_documents_is_of_as_many_as_fit(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    names = [f"p{number}" for number in range(6)]
    with serving(tmp_path, HEADRACE_STORE__KIND="memory") as server:
        for count, name in enumerate([*names, *["p0"] * 5]):
            document = {
                "version": 1,
                "pipeline": name,
                "source": {"table": "a", "key": ["id"]},
                "destination": {"table": f"t_{name}"},
                "tests": [
                    {
                        "name": "t",
                        "given": [{"id": count + row, "text": "x" * 9_900} for row in range(23)],
                        "expect": [],
                    }
                ],
            }
            answer = server.call("PUT", f"/v1/pipelines/{name}", document)
            assert answer.status in (200, 201), answer.body
        viewer = key_of(tmp_path, Role.VIEWER)
        found: list[str] = []
        cursor = ""
        while True:
            page = server.call("GET", f"/v1/pipelines?limit=500{cursor}", key=viewer)
            assert len(json.dumps(page.body)) < 1_200_000
            found += [item["name"] for item in page.body["items"]]
            if page.body["next_cursor"] is None:
                break
            cursor = f"&cursor={page.body['next_cursor']}"
        assert found == names

        revisions: list[int] = []
        before = ""
        while rest := server.call("GET", f"/v1/pipelines/p0/revisions?limit=500{before}", key=viewer).body:
            assert len(json.dumps(rest)) < 1_200_000
            revisions += [item["revision"] for item in rest]
            before = f"&before={revisions[-1]}"
        assert revisions == [6, 5, 4, 3, 2, 1]
        assert server.call("GET", "/v1/pipelines/p0/revisions?before=0", key=viewer).status == 422
