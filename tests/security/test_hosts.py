"""What connections dial: refused and permitted at both doors, rebinding names, and names that TLS checks."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dependency_injector import providers

from application.catalog.documents import PutDocument
from domain.errors import PlatformError
from domain.pipelines.dialing import DialRules, Place
from domain.runs.run import RunState
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from infrastructure.dialing import Dialer
from infrastructure.settings.sources import load_settings
from infrastructure.stores.postgres.connection import PostgresAddress, connect
from tests.databases import postgres
from tests.e2e.api import Server, headrace, serving
from tests.e2e.inside import ME, Inside
from tests.e2e.projects import (
    new_project,
    people_pipeline,
    postgres_connection,
    postgres_environment,
    with_people,
    write,
)
from tests.links import connected
from tests.security.test_bad_input import SHOP, accepted_at_both_doors, refused_at_both_doors, with_change

CODE = "connection.host_forbidden"
NAME = "shop.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(new_project(tmp_path_factory.mktemp("hosts") / "project"), HEADRACE_STORE__KIND="memory") as running:
        yield running


@pytest.mark.line("26")
def test_address_that_is_never_dialed_is_refused_when_it_is_put(server: Server) -> None:
    for host in (
        "169.254.169.254", "169.254.7.7", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
        "::ffff:169.254.169.254", "[::ffff:169.254.169.254]", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "fe80::1",
        "fd00:ec2::254", "100.100.100.200", "2002:a9fe:a9fe::1", "224.0.0.1", "255.255.255.255",
    ):  # fmt: skip
        answer = server.call("PUT", "/v1/connections/shop", with_change("options.host", host, SHOP))
        assert (answer.status, answer.body["code"]) == (422, CODE), host
        assert host not in str(answer.body)
    for host in ("2852039166", "[::ffff:169.254.169.254]"):
        refused_at_both_doors(server, with_change("options.host", host, SHOP), CODE, kind="connection", name="shop")


@pytest.mark.line("26")
def test_near_address_is_accepted_for_one_organization(server: Server) -> None:
    for host in ("127.0.0.1", "2130706433", "::1", "0", "10.0.0.1", "100.64.0.1", "fd12::1"):
        answer = server.call("PUT", "/v1/connections/shop", with_change("options.host", host, SHOP))
        assert answer.status in (200, 201), answer.body
    server.call("DELETE", "/v1/connections/shop")
    accepted_at_both_doors(server, with_change("options.host", "0x7f.1", SHOP), kind="connection", name="shop")


@pytest.mark.line("26")
def test_near_address_outside_of_the_networks_is_refused(tmp_path: Path) -> None:
    allowed = {"HEADRACE_CONNECTIONS__ALLOW_NETWORKS": "10.1.0.0/16, ::1/128", "HEADRACE_STORE__KIND": "memory"}
    with serving(new_project(tmp_path / "project"), **allowed) as server:
        for host in ("10.1.2.3", "::1", "8.8.8.8"):
            document = with_change("options.host", host, SHOP)
            assert server.call("PUT", "/v1/connections/shop", document).status in (200, 201)
        for host in ("10.2.0.1", "127.0.0.1", "0", "localhost"):
            document = with_change("options.port", 1, with_change("options.host", host, SHOP))
            put = server.call("PUT", "/v1/connections/shop", document)
            tried = server.call("POST", "/v1/connections/shop/test").body
            if host == "localhost":  # A name is judged when it is dialed; ::1 is one of its addresses at most.
                assert (put.status, tried["ok"]) == (200, False)
            else:
                assert (put.status, put.body["code"]) == (422, CODE)


@asynccontextmanager
async def inside(
    folder: Path, resolve: Callable[[str, int], Sequence[str]], rules: DialRules | None = None, **settings: str
) -> AsyncIterator[Inside]:
    """An installation with a resolver of the test's own."""
    container = build_container(load_settings(root=folder, environment=settings).settings, folder)
    container.gateways.container.resolver.override(providers.Object(resolve))
    if rules is not None:
        container.gateways.container.dialing.override(providers.Object(rules))
    async with running(container, with_store=False) as use_cases:
        yield Inside(use_cases)


def at_name(url: str, name: str = "shop") -> str:
    """A connection to a database under a name of ours."""
    return postgres_connection(url, name).replace(f"host: {urlsplit(url).hostname}", f"host: {NAME}")


@pytest.fixture
def canary() -> Iterator[tuple[int, list[object]]]:
    """A port of loopback that notes who dials it."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, peer = listener.accept()
                    seen.append(peer)
                    taken.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1], seen
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)


@pytest.mark.line("27")
@pytest.mark.parametrize(
    ("answer", "rules"),
    [
        (["169.254.169.254"], DialRules()),
        (["64:ff9b::7f00:1"], DialRules()),
        (["127.0.0.1"], DialRules(is_shared=True)),
        (["::ffff:127.0.0.1", "::1", "10.0.0.1"], DialRules(is_shared=True)),
        (["127.0.0.1"], DialRules(allowed=("10.0.0.0/8",))),
    ],
    ids=["metadata", "nat64", "shared", "shared-many", "unnamed"],
)
async def test_name_of_a_forbidden_address_is_refused_wherever_it_would_be_dialed(
    answer: list[str], rules: DialRules, tmp_path: Path, canary: tuple[int, list[object]]
) -> None:
    port, seen = canary
    async with inside(new_project(tmp_path / "project"), lambda host, port: answer, rules) as there:
        await there.put(at_name(f"postgresql://u@127.0.0.1:{port}/d"))
        await there.pipeline("copy", "connection: shop, table: a, key: [id]", "table: b")

        tried = await there.use_cases.probe.test(ME, "shop")
        stored = await there.use_cases.catalog.get(ME, "pipeline", "copy")
        command = PutDocument("pipeline", "copy", stored.document)
        planned = await there.use_cases.planner.plan(ME, [command], prune=False)
        run = await there.ran("copy")

    assert (tried.is_healthy, tried.step) == (False, "name")
    assert run.error is not None
    assert (run.state, run.error.code, run.retries) == (RunState.FAILED, CODE, 0)
    assert any(CODE in note for note in planned[0].notes), planned
    assert not any(address in str((tried.detail, run.error)) for address in answer)
    assert seen == []


async def refusal(doing: Any) -> PlatformError | None:
    try:
        await doing
    except PlatformError as error:
        return error
    return None


@pytest.mark.line("27")
async def test_name_that_answers_otherwise_later_is_not_dialed(tmp_path: Path, postgres_database: str) -> None:
    asked = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) <= 2 else ["169.254.169.254"]

    async with inside(new_project(tmp_path / "project"), rebinding) as there:
        await there.put(at_name(postgres_database))
        store = await there.store("shop")  # Two sessions, to find out whether a pooler parts them.
        assert len(asked) == 2
        assert (await store.health_check()).is_healthy  # One of them, which goes on being what it was.
        await store.close()
        tried = await store.health_check()

    assert (tried.is_healthy, tried.step, len(asked)) == (False, "name", 3)


@pytest.mark.line("27")
@pytest.mark.parametrize("rules", [DialRules(), DialRules(is_shared=True, allowed=("127.0.0.0/8",))])
async def test_rows_pass_between_names_whose_permitted_address_is_dialed(
    rules: DialRules, tmp_path: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "CREATE TABLE a AS SELECT g AS id FROM generate_series(1, 50) g")
    postgres(postgres_database, "ALTER TABLE a ADD PRIMARY KEY (id)")
    found = ["169.254.169.254", "127.0.0.1", "64:ff9b::7f00:1"]
    async with inside(new_project(tmp_path / "project"), lambda host, port: found, rules) as there:
        await there.put(at_name(postgres_database))
        await there.put(at_name(postgres_database, "warehouse"))
        await there.pipeline("copy", "connection: shop, table: a, key: [id]", "connection: warehouse, table: b")
        report = await there.report("copy")

    assert report["way"] == "pass-through"  # So both drivers dialed.
    assert postgres(postgres_database, "SELECT count(*) FROM b") == [(50,)]


@pytest.mark.line("26")
async def test_database_of_the_records_is_refused_and_default_lies_there(
    tmp_path: Path, postgres_database: str, postgres_server_url: str
) -> None:
    settings = {**postgres_environment(postgres_database), "HEADRACE_METADATA__KIND": "postgres"}
    async with inside(new_project(tmp_path / "project"), lambda host, port: ["127.0.0.1"], **settings) as there:
        literal = await refusal(there.put(postgres_connection(postgres_database, "shop")))
        await there.put(at_name(postgres_database))
        tried = await there.use_cases.probe.test(ME, "shop")
        beside = await refusal(there.put(postgres_connection(f"{postgres_server_url}/postgres", "beside")))
        beside_tried = await there.use_cases.probe.test(ME, "beside")
        own = await there.use_cases.probe.test(ME, "default")

    assert literal is not None
    assert literal.code == CODE
    assert (tried.is_healthy, tried.step) == (False, "name")
    assert beside is None
    assert beside_tried.is_healthy, beside_tried.detail
    assert own.is_healthy, own.detail


@pytest.mark.line("26")
@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"DB_HOST": "db", "DB_NAME": "d", "DB_USER": "u"}, Place("db", 5432, "d")),
        ({"HEADRACE_METADATA__URL": "postgresql://u:p%2F@records:6543/own%20one"}, Place("records", 6543, "own one")),
        ({"HEADRACE_METADATA__URL": "postgresql://u@[::1]/d"}, Place("::1", 5432, "d")),
        (
            {"DB_HOST": "db", "DB_NAME": "d", "DB_USER": "u", "HEADRACE_METADATA__NAME": "own"}
            | {"HEADRACE_METADATA__USER": "r", "HEADRACE_METADATA__PASSWORD": "p"},
            Place("db", 5432, "own"),
        ),
    ],
)
def test_records_are_where_the_settings_say(settings: dict[str, str], place: Place, tmp_path: Path) -> None:
    loaded = load_settings(root=tmp_path, environment={"HEADRACE_METADATA__KIND": "postgres", **settings}).settings

    assert build_container(loaded, tmp_path).gateways.container.dialing().records == place


class TlsServer:
    """Speaks TLS as a Postgres does, and notes the name it was asked for and whether anybody signed in."""

    def __init__(self, folder: Path, name: str) -> None:
        self.certificate = folder / "server.crt"
        key = folder / "server.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
             "-keyout", key, "-out", self.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        self.asked: list[str | None] = []
        self.signed_in = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.certificate, key)
        self._context.sni_callback = lambda taken, asked, context: self.asked.append(asked)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError, ssl.SSLError), taken:
                taken.settimeout(5)
                taken.recv(8)
                taken.sendall(b"S")
                with self._context.wrap_socket(taken, server_side=True) as secured:
                    self.signed_in += bool(secured.recv(1))
                    told = b"SFATAL\0VFATAL\0C53300\0Mtoo many clients\0\0"
                    secured.sendall(b"E" + (len(told) + 4).to_bytes(4, "big") + told)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)


@pytest.mark.line("27")
@pytest.mark.parametrize("driver", ["adbc", "asyncpg"])
@pytest.mark.parametrize(("name", "is_good"), [(NAME, True), ("other.example", False)])
async def test_certificate_is_that_of_the_name_although_an_address_is_dialed(
    driver: str, name: str, is_good: bool, tmp_path: Path
) -> None:
    server = TlsServer(tmp_path, name)
    address = PostgresAddress(
        NAME, server.port, "d", "u", sslmode="verify-full", ssl_ca_cert=str(server.certificate),
        connect_timeout_seconds=5, dialer=Dialer(DialRules(), lambda host, port: ["127.0.0.1"]),
    )  # fmt: skip
    with pytest.raises(PlatformError) as caught:  # It is no Postgres; what it saw is what counts.
        if driver == "adbc":
            await asyncio.to_thread(connect, address, "test")
        else:
            async with connected(address, "test"):
                pass
    server.close()

    assert server.asked == [NAME]
    assert (server.signed_in, caught.value.code) == ((1, "store.too_many_connections") if is_good else (0, "store.tls"))


@pytest.mark.line("27")
async def test_loop_goes_on_while_a_name_is_resolved(postgres_database: str) -> None:
    waited, may_answer = list[bool](), threading.Event()

    def slow(host: str, port: int) -> Sequence[str]:
        waited.append(may_answer.wait(5))
        return ["127.0.0.1"]

    at = urlsplit(postgres_database)
    address = PostgresAddress(
        NAME, at.port or 5432, at.path[1:], "postgres", sslmode="disable", dialer=Dialer(DialRules(), slow)
    )
    asyncio.get_running_loop().call_later(0.05, may_answer.set)
    async with connected(address, "test") as connection:
        assert await connection.fetchval("SELECT 1") == 1

    assert waited == [True]


@pytest.mark.line("27")
async def test_statement_is_canceled_at_the_address_that_was_dialed(postgres_database: str) -> None:
    asked = list[str]()

    def once(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    at = urlsplit(postgres_database)
    address = PostgresAddress(
        NAME, at.port or 5432, at.path[1:], "postgres", sslmode="disable", dialer=Dialer(DialRules(), once)
    )
    async with connected(address, "test") as connection:
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(30)", timeout=0.2)
        async with asyncio.timeout(10):  # Nothing is asked of it before the server has given up.
            assert await connection.fetchval("SELECT 1") == 1
    assert asked == [NAME]


@pytest.mark.line("27")
def test_run_whose_destination_became_forbidden_waits_for_somebody_who_may(
    tmp_path: Path, postgres_database: str
) -> None:
    folder = new_project(tmp_path / "project")
    with_people(folder)
    write(folder, "connections/warehouse.yaml", postgres_connection(postgres_database))
    write(folder, "pipelines/people.yaml", people_pipeline(connection="warehouse"))
    killed = headrace(folder, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT="batch.before_commit:3:kill")
    assert killed.returncode == -9

    narrowed = {"HEADRACE_CONNECTIONS__ALLOW_NETWORKS": "10.0.0.0/8"}
    refused = headrace(folder, "run", "people", **narrowed)
    (run,) = json.loads(headrace(folder, "runs", "list", "--json").stdout)["items"]
    resumed = headrace(folder, "run", "people")

    assert refused.returncode != 0
    assert CODE in refused.stderr
    assert "unexpected" not in refused.stderr
    assert (run["state"], run["reason"]) == ("running", f"sealing: {CODE}")
    assert resumed.returncode == 0, resumed.stderr
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM people") == [(989, 989)]


async def test_driver_is_told_each_address_with_the_name() -> None:
    address = PostgresAddress("db.example", 5432, "d", "u")

    assert "@db.example:5432/d?" in address.url()
    twice = replace(address, dialed=("10.0.0.1", "fd12::1")).url()
    assert "@db.example:5432,db.example:5432/d?" in twice
    assert "hostaddr=10.0.0.1%2Cfd12%3A%3A1" in twice
