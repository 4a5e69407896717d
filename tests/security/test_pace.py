"""What clients send is parsed at a pace, and who has left, or takes no answer, is in nobody's way."""

import asyncio
import resource
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from entrypoints.http.pace import AT_ONCE, Pace
from entrypoints.http.transport import TransportLimits, protocol_within
from entrypoints.process.descriptors import allow_connections
from tests.security.raw_connections import all_answered, listening

END = {"type": "http.response.body", "body": b""}


def _client(listener: socket.socket, stack: ExitStack, *, takes: int | None = None) -> socket.socket:
    client = stack.enter_context(socket.socket())
    if takes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
    client.connect(listener.getsockname()[:2])
    client.setblocking(False)
    return client


async def _measured(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the size of the body."""
    size, message = 0, {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        size += len(message.get("body", b""))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({**END, "body": b"size=%d" % size})


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.line("36")
async def test_the_smallest_chunks_of_bodies_keep_nobody_waiting() -> None:
    """Each costs a call of Python, and needs no key: what came at once was a turn of the loop of seconds."""
    parsed, at_most = 0, 0

    class Counted(protocol_within(TransportLimits())):  # type: ignore[misc]
        def on_body(self, body: bytes) -> None:
            nonlocal parsed
            parsed += len(body) == 1
            super().on_body(body)

    async def watch() -> None:
        nonlocal at_most
        while True:
            before = parsed
            await asyncio.sleep(0)
            at_most = max(at_most, parsed - before)

    loop = asyncio.get_running_loop()
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
    whole = POST + b"Content-Length: 1000000\r\n\r\n" + b"y" * 1_000_000
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        async with listening(_measured, Counted, listener):
            clients = [_client(listener, stack) for _ in range(4)]
            further = _client(listener, stack)
            watching = asyncio.create_task(watch())
            sending = [asyncio.create_task(loop.sock_sendall(client, chunked)) for client in clients[:3]]
            while not parsed:
                await asyncio.sleep(0)
            sending.append(asyncio.create_task(loop.sock_sendall(clients[3], whole)))
            await loop.sock_sendall(further, POST + b"\r\n")
            assert b"size=0" in await all_answered(further)
            assert parsed < 60_000
            for client, size in zip(clients, (*[40_000] * 3, 1_000_000), strict=True):
                assert b"size=%d" % size in await all_answered(client)
            await asyncio.gather(*sending)
            watching.cancel()
    assert at_most < 20_000


class _Text:
    """Something to be parsed, and who else was by then."""

    def __init__(self, size: int, order: list["_Text"]) -> None:
        self.size = size
        self._order = order

    def parse_some(self) -> bool:
        self._order.append(self)
        self.size -= AT_ONCE
        return self.size > 0


@pytest.mark.line("36")
async def test_who_sends_much_is_parsed_in_turns_with_the_others_and_to_its_end() -> None:
    order: list[_Text] = []
    pace = Pace(seconds=0)
    large, small = _Text(10 * AT_ONCE, order), _Text(AT_ONCE, order)
    for one in (large, small):
        pace.parse(one)
    first = _Text(1, order)
    pace.parse(first, is_first=True)
    assert order == [first]
    for _ in range(20):
        await asyncio.sleep(0)
    assert small in order[:4]
    assert order.count(large) == 10

    at_once = _Text(1, order)
    Pace().parse(at_once)  # Where there is time, nobody waits for a turn.
    assert order[-1] is at_once


@pytest.mark.line("36")
async def test_whose_request_is_worked_on_is_known_to_have_left_whatever_stands_behind_it() -> None:
    left = list[str]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.append(scope["path"])

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        async with listening(app, protocol_within(TransportLimits()), listener) as server:
            for paths, pad in ((b"a",), 0), ((b"b", b"c", b"d"), 0), ((b"e", b"f"), 9_000), ((b"g", b"h"), 300_000):
                client = _client(listener, stack)
                head = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
                sent = b"".join(b"GET /" + path + head for path in paths)
                sending = asyncio.create_task(loop.sock_sendall(client, sent[:-2] + b"X: " + b"x" * pad + b"\r\n\r\n"))
                while not server.server_state.tasks:
                    await asyncio.sleep(0.01)
                await sending
                client.close()
                async with asyncio.timeout(5):
                    while server.server_state.tasks:
                        await asyncio.sleep(0.01)
    assert left == ["/a", "/b", "/e", "/g"]


@pytest.mark.line("36")
async def test_a_connection_whose_answer_came_before_its_body_is_kept_no_longer_than_others() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send(END)

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        kind = protocol_within(TransportLimits())
        async with listening(app, kind, listener, timeout_keep_alive=0.2):
            client = _client(listener, stack)
            for _ in range(2):  # It may be used again, and then it ends.
                client.sendall(POST + b"Content-Length: 2\r\n\r\n")
                assert (await loop.sock_recv(client, 1024)).startswith(b"HTTP/1.1 401 ")
                client.sendall(b"{}")
            async with asyncio.timeout(2):
                assert await loop.sock_recv(client, 1) == b""


@pytest.mark.line("36")
async def test_who_does_not_take_the_end_of_a_last_answer_gives_the_place_to_others() -> None:
    """So little of it is left that nothing pauses, and nothing is asked of the connection any more."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        if scope["path"] == "/much":
            mine = next(one for one in server.server_state.connections if one.scope is scope)  # type: ignore[union-attr]
            while not mine.transport.get_write_buffer_size():  # type: ignore[union-attr]
                await send({**END, "body": b"x" * 16384, "more_body": True})
                await asyncio.sleep(0.002)
            await send({**END, "body": b"x" * 30_000, "more_body": True})
        await send({**END, "body": b"well"})

    def asks(path: bytes) -> bytes:
        return b"GET /" + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"

    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        async with listening(app, protocol_within(TransportLimits(connections=4)), listener) as server:
            slow = [_client(listener, stack, takes=32768) for _ in range(4)]
            for number, client in enumerate(slow):
                client.sendall(asks(b"much"))
                while sum(one.transport.is_closing() for one in server.server_state.connections) <= number:  # type: ignore[union-attr]
                    await asyncio.sleep(0.01)
            further = _client(listener, stack)
            further.sendall(asks(b"little"))
            assert b"well" in await all_answered(further)
            for client in slow[1:]:  # Those who have waited for less long may still take theirs.
                assert b"well" in await all_answered(client)


@pytest.mark.line("36")
def test_so_many_files_may_be_open_as_connections_and_all_else_need(capsys: pytest.CaptureFixture[str]) -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        allow_connections(8)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1544, hard)
        allow_connections(4)  # What there is more is left.
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1544, hard)
        assert "server.descriptors" not in capsys.readouterr().out
        if hard != resource.RLIM_INFINITY:
            allow_connections(hard)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
            assert "HEADRACE_HTTP__MAX_CONNECTIONS" in capsys.readouterr().out
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
