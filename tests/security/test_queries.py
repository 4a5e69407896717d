"""Queries that reach beyond their tables: refused at both doors and by the stores; forced past, the server refuses."""

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.measuring import peak_mb
from domain.errors import PlatformError, WorkFailedError
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import IDataStore
from infrastructure.queries import postgres_judging, postgres_names, postgres_scopes
from infrastructure.queries.duckdb_reading import DuckDBQuery
from infrastructure.security.query_guard import judge_source
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import postgres
from tests.ports.backends import address_of
from tests.security.test_bad_input import QUERY, accepted_at_both_doors, refused_at_both_doors, with_change


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("queries")
    (folder / "headrace.toml").write_text("[settings.store]\nkind = 'memory'\n")  # Both doors know as little.
    with serving(folder) as running:
        yield running


@pytest.mark.line("10")
@pytest.mark.parametrize(
    ("query", "twin"),
    [
        ("select pg_read_file('/etc/passwd')", "select pg_size_pretty(1024::bigint)"),
        ("select pg_catalog.\"pg_read_file\"('/etc/passwd')", "select pg_catalog.pg_typeof(1)"),
        ("select U&\"pg_read\\005ffile\"('/etc/passwd')", "select 'pg_read_file'"),
        ("select * from dblink('host=x', 'select 1') as t(a int)", "select * from my_rows(1) as t(a)"),
        ("select lo_import('/etc/passwd')", "select lower('A')"),
        ("select query_to_xml('select 1', true, true, '')", "select xmlforest(1 as a)"),
        ("select pg_terminate_backend(1)", "select pg_backend_pid()"),
        ("select a from t where set_config('x', 'y', true) = a", "select a from t where quote_literal('x') = a"),
        ("select 1 from t order by nextval('s')", "select 1 from t order by random()"),
        ("select * from rows from (pg_ls_dir('/'), generate_series(1, 2)) as t", "select * from generate_series(1, 2)"),
        ("select * from ts_stat('select 1')", "select to_tsvector('a')"),
    ],
)
def test_function_that_reaches_beyond_the_tables(server: Server, query: str, twin: str) -> None:
    refused_at_both_doors(server, with_change("source.query", query, QUERY), "query.forbidden_function")

    judge_source(twin)


@pytest.mark.line("10", "12")
def test_relation_that_is_a_secret_or_a_file(server: Server) -> None:
    for relation in ("pg_shadow", "pg_catalog.pg_authid", "'/etc/passwd'", "'http://host/x.csv'"):
        document = with_change("source.query", f"select * from {relation}", QUERY)
        refused_at_both_doors(server, document, "query.forbidden_relation")
    accepted_at_both_doors(server, with_change("source.query", "select * from pg_tables", QUERY))


@pytest.mark.line("10")
async def test_forced_past_the_guard_the_role_is_not_allowed_to(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defence after the guard is the role: with the guard off, the server says no, and so do we."""
    postgres(postgres_database, "create role plain login")
    store = PostgresDataStore(address_of(postgres_database.replace("postgres@", "plain@")))
    source = SourceSpec(query="select pg_read_file('/etc/passwd') as a")
    try:
        await store.open()
        with pytest.raises(PlatformError) as guarded:
            await _read(store, source)
        for module in (postgres_judging, postgres_scopes):
            monkeypatch.setattr(module, "FUNCTIONS", postgres_names.FUNCTIONS | {"pg_read_file"})
        with pytest.raises(PlatformError) as forced:
            await _read(store, source)
        monkeypatch.undo()
        await _read(store, SourceSpec(query="select pg_size_pretty(1024::bigint) as a"))
    finally:
        await store.close()
        postgres(postgres_database, "drop role plain")
    assert guarded.value.code == "query.forbidden_function"
    assert forced.value.code == "store.permission"
    assert "may not use the function pg_read_file" in forced.value.message


async def _read(store: IDataStore, source: SourceSpec) -> None:
    async with aclosing(store.read(source, batch_rows=10)) as batches:
        async for _ in batches:
            pass


def _document(query: str, *, connection: str = "shop", key: str = "") -> str:
    source = {"connection": connection, "query": query, **({"key": [key]} if key else {})}
    return f"version: 1\npipeline: p\nsource: {json.dumps(source)}\ndestination: {{table: copied}}\n"


@pytest.mark.line("11")
@pytest.mark.parametrize(
    "query",
    [
        "select id, pg_sleep(3600) is null as slept from generate_series(1, 3) id",
        "select count(*) as id from generate_series(1, 1000000) a, generate_series(1, 1000000) b",
        "select max(a.id) as id from generate_series(1, 3) a(id) where pg_sleep(3600) is not null",
    ],
    ids=["sleep", "cross-join", "sleep-in-where"],
)
def test_query_that_never_answers_ends_its_run_and_its_backend(
    project: Path, postgres_database: str, query: str
) -> None:
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(project, "pipelines/p.yaml", _document(query))
    impatient = {"HEADRACE_RUN__QUERY_TIMEOUT_SECONDS": "1"}
    started = time.monotonic()

    done = headrace(project, "run", "pipelines/p.yaml", **impatient)

    assert (done.returncode, "query.timeout" in done.stderr) == (1, True), done.stderr
    assert time.monotonic() - started < 30
    _no_backend_works(postgres_database)
    preview = headrace(project, "preview", "pipelines/p.yaml", **impatient)
    assert (preview.returncode, "query.timeout" in preview.stderr) == (1, True), preview.stderr
    _no_backend_works(postgres_database)
    write(project, "pipelines/p.yaml", _document("select id, pg_sleep(0.1) is null as s from generate_series(1, 3) id"))
    assert headrace(project, "run", "pipelines/p.yaml", "--abandon", **impatient).returncode == 0


def _no_backend_works(url: str) -> None:
    deadline = time.monotonic() + 15
    while postgres(
        url,
        "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
        "and state <> 'idle'",
    ):
        assert time.monotonic() < deadline, "a backend is still at work"
        time.sleep(0.1)


@pytest.mark.line("11")
def test_query_too_long_to_look_at_is_refused_at_once(server: Server) -> None:
    terms = "select " + "+".join("1" for _ in range(1_000_000))
    refused_at_both_doors(server, with_change("source.query", terms, QUERY), "spec.too_large")
    nested = "select " + "(" * 5_000 + "1" + ")" * 5_000
    refused_at_both_doors(server, with_change("source.query", nested, QUERY), "query.too_large")
    accepted_at_both_doors(server, with_change("source.query", "select " + "+".join("1" for _ in range(500)), QUERY))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    store = DuckDBDataStore(DuckDBOptions(path=tmp_path / "home" / "data.duckdb", scratch=tmp_path / "scratch"))
    await store.open()
    yield store
    await store.close()


@pytest.mark.line("12")
@pytest.mark.parametrize(
    "query",
    [
        "FROM '/etc/passwd'",
        "SELECT * FROM read_csv('http://127.0.0.1:{port}/x.csv')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM query('select 1')",
        "SELECT * FROM glob('/etc/*')",
        "ATTACH '{file}' AS other",
        "COPY (SELECT 1) TO '{written}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "PRAGMA version",
        "EXPORT DATABASE '{written}'",
        "CALL pragma_version()",
    ],
)
async def test_duckdb_opens_no_file_and_no_socket(
    store: DuckDBDataStore, tmp_path: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the guard and, a second time, without it: the engine itself is locked."""
    import socket

    (tmp_path / "secret.csv").write_text("a\n1\n")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    text = query.format(port=listener.getsockname()[1], file=tmp_path / "secret.csv", written=tmp_path / "written")

    for is_guarded in (True, False):
        if not is_guarded:
            if "query('select 1')" in query:
                continue  # It reaches nothing by itself; what it would run is locked like the rest.
            unguarded = DuckDBQuery(text, frozenset(), (), frozenset(), frozenset(), is_plain=False)
            for module in ("selection", "reserved", "held"):
                monkeypatch.setattr(f"infrastructure.stores.duckdb.{module}.looked_at", lambda *_, u=unguarded: u)
        with pytest.raises(PlatformError) as caught:
            await store.plan(SourceSpec(query=text), lo=None, limit=None)
            await _read(store, SourceSpec(query=text))
        assert caught.value.code.startswith("query.") or not is_guarded, caught.value.code
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.close()
    assert not (tmp_path / "written").exists()
    assert not any(path.endswith("secret.csv") for path in _open_files())
    monkeypatch.undo()
    plan = await store.plan(SourceSpec(query="SELECT * FROM range(3) AS t(a)"), lo=None, limit=None)
    assert plan.columns[0][0] == "a"


def _open_files() -> set[str]:
    return {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


@pytest.mark.line("32")
def test_violated_constraint_is_named_without_the_row(project: Path, postgres_database: str) -> None:
    canary = "canary-4711"
    postgres(postgres_database, "create table landed (id bigint primary key, name text not null check (name <> 'x'))")
    environment = postgres_environment(postgres_database)
    said: list[tuple[str, str]] = []
    for values, expected in (
        (f"(1, '{canary}'), (1, '{canary}')", "constraint landed_pkey of landed"),
        ("(2, null)", "column name of landed"),
        ("(3, 'x')", "constraint landed_name_check of landed"),
    ):
        query = f"select id::bigint as id, name from (values {values}) as v(id, name)"
        write(
            project,
            "pipelines/p.yaml",
            f"version: 1\npipeline: p\nsource: {{query: {json.dumps(query)}}}\n"
            "destination: {table: landed, metadata_columns: false, publish: run}\n",
        )
        done = headrace(project, "run", "pipelines/p.yaml", "--abandon", **environment)
        assert done.returncode == 1, done.stdout
        said.append((done.stdout + done.stderr, expected))
    shown = headrace(project, "runs", "list", "--json", **environment).stdout
    written = "".join(path.read_text(errors="replace") for path in (project / ".headrace").rglob("*.log"))

    for text, expected in said:
        assert "destination.constraint" in text, text
        assert expected in text
        assert canary not in text + shown + written
    assert postgres(postgres_database, "select * from landed") == []


@pytest.mark.line("11", "29")
@pytest.mark.parametrize("step", ["", "transform: [{sql: select * from batch}]\n"], ids=["pass-through", "arrow"])
def test_rows_without_end_stop_at_the_time_limit_and_the_worker_lives(
    project: Path, postgres_database: str, step: str
) -> None:
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    endless = "select g::bigint as id, repeat('x', 500) as note from generate_series(1, 1000000000000) g"
    with serving(project) as server:
        shop = (project / "connections/shop.yaml").read_text()
        assert server.call("PUT", "/v1/connections/shop", shop, kind="application/yaml").status == 201
        idle = peak_mb(server.process.pid)
        document = _document(endless) + step + "run: {timeout: 2s}\nretry: {attempts: 0}\n"
        assert server.call("PUT", "/v1/pipelines/p", document, kind="application/yaml").status == 201

        done = server.wait_for(server.call("POST", "/v1/pipelines/p/trigger").body["id"])

        assert (done["state"], done["error"]["code"]) == ("failed", "run.timeout")
        assert peak_mb(server.process.pid) - idle < 400
        assert server.call("GET", "/health").status == 200
        _no_backend_works(postgres_database)
        other = _document("select 1 as id").replace("pipeline: p", "pipeline: q").replace("copied", "other")
        assert server.call("PUT", "/v1/pipelines/q", other, kind="application/yaml").status == 201
        after = server.wait_for(server.call("POST", "/v1/pipelines/q/trigger").body["id"])
        assert after["state"] == "succeeded"


@pytest.mark.line("29")
async def test_cancelled_wait_is_not_taken_for_a_slow_store() -> None:
    import asyncio
    from datetime import timedelta

    from application.loads.patience import Patience

    async def slow() -> int:
        await asyncio.sleep(60)
        return 1

    async def inner() -> int:
        raise TimeoutError

    with pytest.raises(WorkFailedError) as caught:
        await Patience(timedelta(seconds=0.01)).answer(slow())
    assert caught.value.code == "query.timeout"
    with pytest.raises(TimeoutError):
        await Patience(timedelta(seconds=5)).answer(inner())

    async def drip() -> AsyncIterator[Any]:
        for number in range(3):
            await asyncio.sleep(0.01)
            yield number

    assert [item async for item in Patience(timedelta(seconds=5)).each(drip())] == [0, 1, 2]  # type: ignore[arg-type]
