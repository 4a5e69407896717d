"""Servers that let us in and then send without end, or nothing: neither memory nor threads go with them, and honest
ones are not cut.
"""

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from domain.errors import PlatformError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure import threads
from infrastructure.stores.postgres import channel, connection, watching
from infrastructure.stores.postgres.connection import PostgresAddress, connect
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.sockets import MARKS, peers
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.e2e.api import serving
from tests.faults.proxy import Proxy
from tests.security.lying_postgres import LyingPostgres

pytestmark = pytest.mark.line("11")
TABLE = SourceSpec(table=TableName("t"))
COPIED = b'COPY (SELECT "id"'


def address_of(port: int, database: str = "d") -> PostgresAddress:
    return PostgresAddress("127.0.0.1", port, database, "postgres", sslmode="disable", connect_timeout_seconds=1)


def peak_mb(process: int | str = "self") -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@contextmanager
def small(megabytes: int = 300) -> Iterator[None]:
    """Neither memory nor a thread goes with the block."""
    Path("/proc/self/clear_refs").write_text("5")  # The peak of memory begins anew.
    before, running = peak_mb(), {each.ident for each in threading.enumerate()}
    yield
    assert peak_mb() - before < megabytes
    deadline = time.monotonic() + 3
    while left := [
        each.name
        for each in threading.enumerate()
        if each.name.startswith("postgres") and each.name != "postgres-watch" and each.ident not in running
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


@pytest.fixture
def lying() -> Iterator[Callable[..., LyingPostgres]]:
    made = list[LyingPostgres]()

    def lies(*given: Any) -> LyingPostgres:
        made.append(LyingPostgres(*given))
        return made[-1]

    yield lies
    for each in made:
        each.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SPARE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "_PROMPT_SECONDS", 0.2)
    monkeypatch.setattr(watching, "_MOST_MORE_SECONDS", 0.2)
    monkeypatch.setattr(threads, "_GIVE_UP_AFTER_SECONDS", 0.3)


@pytest.fixture
def database(postgres_database: str) -> str:
    postgres(postgres_database, "CREATE TABLE t AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 100) i")
    return postgres_database


@contextmanager
def stored(server: LyingPostgres, database: str) -> Iterator[PostgresDataStore]:
    store = PostgresDataStore(address_of(server.port, urlsplit(database).path[1:]))
    yield store


async def everything(store: PostgresDataStore, source: SourceSpec = TABLE) -> int:
    rows = 0
    async with aclosing(store.read(source, batch_rows=1000)) as batches:
        async for batch in batches:
            rows += batch.num_rows
    return rows


@pytest.mark.parametrize(
    ("mode", "megabytes"),
    [
        ("error", 300),
        ("notifications", 300),
        ("rows", 300),
        ("empty rows", 640),
    ],  # Of a NULL the driver makes four times as much.
)
def test_what_comes_while_connecting_is_bounded(lying: Callable[..., LyingPostgres], mode: str, megabytes: int) -> None:
    begun = time.monotonic()

    with small(megabytes), pytest.raises(PlatformError) as caught:
        connect(address_of(lying(mode).port), "x")

    assert caught.value.code == "store.answer_too_large"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(("mode", "at"), [("silent", b""), ("silent", b"sign-in"), ("settings", b"sign-in")])
@pytest.mark.usefixtures("hasty")
def test_who_lets_in_and_gives_no_answer_is_left(lying: Callable[..., LyingPostgres], mode: str, at: bytes) -> None:
    begun = time.monotonic()

    with small(), pytest.raises(PlatformError) as caught:
        connect(address_of(lying(mode, at).port), "x")

    assert caught.value.code == "store.unavailable"
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize(
    ("mode", "at"),
    [
        ("error", b"relkind IN"),
        ("notice", b"relkind IN"),
        ("rows", b"relkind IN"),
        ("copied rows", b"COPY (SELECT n.nspname"),
        ("error", COPIED),
        ("copied row", COPIED),
    ],
)
async def test_what_a_statement_is_answered_is_bounded(
    lying: Callable[..., LyingPostgres],
    database: str,
    mode: str,
    at: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "_MOST_VALUES", 50_000)
    server = lying(mode, at, urlsplit(database).port)
    with stored(server, database) as store, small():
        with pytest.raises(PlatformError) as caught:
            await (everything(store) if at == COPIED else store.tables())
        await store.close()

    assert caught.value.code == "store.answer_too_large"
    assert server.told == 1


@pytest.mark.usefixtures("hasty")
async def test_a_test_of_a_connection_ends(lying: Callable[..., LyingPostgres], database: str) -> None:
    server = lying("silent", b"SELECT 1", urlsplit(database).port)
    begun = time.monotonic()
    with stored(server, database) as store, small():
        found = await store.health_check()
        await store.close()

    assert not found.is_healthy
    assert "no whole answer" in str(found.detail)
    assert time.monotonic() - begun < 4


@pytest.mark.usefixtures("hasty")
async def test_idle_sessions_of_a_silent_server_are_not_asked_one_after_another(
    lying: Callable[..., LyingPostgres], database: str
) -> None:
    """`application_name` is set when a session is taken from the pool, and never when one is new."""
    server = lying("silent", b"set_config('application_name'", urlsplit(database).port)
    with stored(server, database) as store, small():
        async with store._session("a"), store._session("b"), store._session("c"):
            pass
        begun = time.monotonic()
        async with store._session("d"):
            pass
        assert time.monotonic() - begun < 2  # One of three was asked, for a second.
        await store.close()

    assert server.told == 1


@pytest.mark.usefixtures("hasty")
async def test_who_is_given_up_keeps_no_thread(lying: Callable[..., LyingPostgres], database: str) -> None:
    server = lying("silent", b"relkind IN", urlsplit(database).port)
    with stored(server, database) as store, small():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.tables()
        await store.close()


@pytest.mark.usefixtures("hasty")
async def test_answers_are_bounded_together(
    lying: Callable[..., LyingPostgres], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_TOGETHER_BYTES", 8 * 2**20)
    monkeypatch.setattr(
        watching, "_TICK_SECONDS", 0.001
    )  # Else a quick server sends more than one answer may have at once.
    server = lying("error", b"relkind IN", urlsplit(database).port)
    with stored(server, database) as store, small():
        found = await asyncio.gather(*(store.tables() for _ in range(4)), return_exceptions=True)
        await store.close()

    assert {getattr(each, "code", each) for each in found} == {"store.unavailable"}


@pytest.mark.usefixtures("hasty")
async def test_honest_servers_may_take_long_and_send_much(database: str) -> None:
    session = PostgresSession(address_of(int(urlsplit(database).port or 0), urlsplit(database).path[1:]), "honest")
    try:
        assert session.execute("SELECT 'slow' FROM pg_sleep(1.2)") == [("slow",)]
        assert len(session.execute("SELECT repeat('x', 40000000)")[0][0]) == 40_000_000
        assert len(session.execute("SELECT i FROM generate_series(1, 30000) i")) == 30_000
        sizes = [batch.nbytes for batch in session.stream("SELECT repeat('x', 100000) FROM generate_series(1, 1300)")]
        assert sum(sizes) >= 130_000_000  # More than any answer may have at once.
        assert session.execute("SELECT 1") == [(1,)]
    finally:
        session.close()


def test_a_lock_may_be_waited_for(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PROMPT_SECONDS", 0.2)
    address = address_of(int(urlsplit(database).port or 0), urlsplit(database).path[1:])
    holder, waiter = PostgresSession(address, "holder"), PostgresSession(address, "waiter")
    try:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE t")
        waiter.execute("BEGIN")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(waiter.execute, "LOCK TABLE t")
            with pytest.raises(TimeoutError):
                waiting.result(1.3)  # Longer than any prompt answer may take.
            holder.end()
            assert waiting.result(10) == []
    finally:
        waiter.close()
        holder.close()


def test_only_marked_sockets_are_found_and_nothing_is_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as mine:
        other, _ = server.accept()
        with other:
            mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, MARKS[-1])
            before = len(os.listdir("/proc/self/fd"))

            (found,) = peers([MARKS[-1]])
            other.sendall(b"x" * 1000)
            assert mine.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
            assert found.received() == 1000
            found.hang_up()
            assert mine.recv(1) == b""
            found.close()
            found.hang_up()

            assert found.received() == 0
            assert peers([MARKS[-2]]) == []
            assert len(os.listdir("/proc/self/fd")) == before


def test_a_server_that_lies_costs_the_program_little(tmp_path: Path, lying: Callable[..., LyingPostgres]) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    with serving(tmp_path, HEADRACE_STORE__KIND="memory") as server:
        for mode in ("error", "rows"):
            options = {
                "host": "127.0.0.1",
                "port": lying(mode).port,
                "database": "d",
                "user": "u",
                "sslmode": "disable",
            }
            body = {"kind": "postgres", "options": {**options, "connect_timeout_seconds": 1}}
            made = server.call("PUT", f"/v1/connections/{mode}", {"version": 1, "connection": mode, **body})
            assert made.status < 300, made.body
        before, slowest = peak_mb(server.process.pid), 0.0
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(server.call, "POST", f"/v1/connections/{mode}/test") for mode in ("error", "rows")]
            while not all(each.done() for each in asked):
                begun = time.monotonic()
                assert server.call("GET", "/health").status == 200
                slowest = max(slowest, time.monotonic() - begun)

        assert all("sent more than 128 MB" in each.result().body["detail"] for each in asked)
        assert slowest < 1
        assert peak_mb(server.process.pid) - before < 300


@pytest.mark.parametrize("is_silent", [True, False])
def test_asking_a_server_to_stop_ends(database: str, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool) -> None:
    if is_silent:
        monkeypatch.setattr(watching, "_CANCEL_SECONDS", 0.3)
    proxy = Proxy(int(urlsplit(database).port or 0))
    with small(), ThreadPoolExecutor(1) as pool:
        session = PostgresSession(address_of(proxy.port, urlsplit(database).path[1:]), "slow")
        waiting = pool.submit(session.execute, "SELECT pg_sleep(60)")
        running = (
            "SELECT count(*) > 0 FROM pg_stat_activity "
            "WHERE application_name = 'slow' AND state = 'active' AND query LIKE '%pg_sleep%'"
        )
        while postgres(database, running) == [(False,)]:
            assert not waiting.done()
        if is_silent:
            proxy.silence()

        begun = time.monotonic()
        session.interrupt()

        assert not is_silent or time.monotonic() - begun < 3
        if is_silent:
            session.hang_up()
        with pytest.raises(PlatformError):
            waiting.result(20)
        session.close()
    proxy.close()
