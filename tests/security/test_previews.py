"""Who may preview may not hold more sessions of a source than there are places, nor those that nobody waits for."""

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.databases import new_database, postgres
from tests.e2e.api import Answer, Server, headrace, serving
from tests.e2e.projects import postgres_connection
from tests.security.test_huge_cells import grown

_READING = (
    "select count(*) from pg_stat_activity where datname = current_database() and query like '%pg_sleep%' and pid <> "
    "pg_backend_pid()"
)
_END_HOLDING = "select pg_cancel_backend(pid) from pg_stat_activity where query like 'do %' and pid <> pg_backend_pid()"


def _put(server: Server, name: str, query: str) -> None:
    text = (
        f"version: 1\npipeline: {name}\nsource: {{connection: warehouse, query: {json.dumps(query)}}}\n"
        "destination: {connection: default, table: landed}\n"
    )
    answer = server.call("PUT", f"/v1/pipelines/{name}", text, kind="application/yaml")
    assert answer.status == 201, answer.body


def _asking(server: Server, name: str, body: bytes = b'{"limit": 5}') -> http.client.HTTPConnection:
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    connection.request("POST", f"/v1/pipelines/{name}/preview", body, headers)
    return connection


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.line("11", "29")
def test_previews_have_places_and_end_with_who_asked(tmp_path: Path, postgres_server_url: str) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    with new_database(postgres_server_url) as database, serving(tmp_path, HEADRACE_CHECKS__PREVIEWS="2") as server:
        text = postgres_connection(database)
        assert server.call("PUT", "/v1/connections/warehouse", text, kind="application/yaml").status == 201
        _put(server, "slow", "select 1 as n, pg_sleep(600) as s")
        _put(server, "quick", "select 1 as n")
        leaving = [_asking(server, "slow") for _ in range(2)]
        _until(lambda: postgres(database, _READING) == [(2,)])

        refused = server.call("POST", "/v1/pipelines/quick/preview", {"limit": 5})

        assert (refused.status, refused.body["code"]) == (503, "worker.busy")
        assert "Retry-After" in refused.headers
        for connection in leaving:
            connection.close()
        _until(lambda: postgres(database, _READING) == [(0,)])
        answer = server.call("POST", "/v1/pipelines/quick/preview", {"limit": 5})
        assert (answer.status, answer.body["rows"]) == (200, [{"n": 1}])


def _held(database: str) -> None:
    """Hold the table's lock until it is cancelled."""
    with suppress(Exception):
        postgres(database, "do $$ begin lock table held; perform pg_sleep(600); end $$")


@pytest.mark.line("11", "29")
def test_a_preview_and_a_plan_end_soon_whatever_a_run_may_take(tmp_path: Path, postgres_server_url: str) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    hasty = {"HEADRACE_CHECKS__PREVIEWS": "8", "HEADRACE_CHECKS__PREVIEW_SECONDS": "0.5"}
    with new_database(postgres_server_url) as database, serving(tmp_path, **hasty) as server:
        postgres(database, "create table held (id int primary key)")
        text = postgres_connection(database)
        assert server.call("PUT", "/v1/connections/warehouse", text, kind="application/yaml").status == 201
        _put(server, "slow", "select 1 as n, pg_sleep(600) as s")
        _put(server, "drip", "select n, pg_sleep(0.1) is null as s from generate_series(1, 6000) n")
        _put(server, "quick", "select 1 as n")

        # Of a dry run, which gives no rows, each answer of the source has that time.
        asked = [("slow", 5, True), ("drip", 5000, True), ("slow", None, False)]

        def preview(name: str, limit: int | None, rows: bool) -> Answer:
            return server.call("POST", f"/v1/pipelines/{name}/preview", {"limit": limit, "rows": rows})

        with ThreadPoolExecutor(4) as threads:
            beside = threads.submit(headrace, tmp_path, "preview", "slow")
            for late in threads.map(preview, *zip(*asked, strict=True)):
                assert (late.status, late.body["code"]) == (422, "query.timeout"), late.body
                assert "HEADRACE_CHECKS__PREVIEW_SECONDS" in late.body["detail"]
            told = beside.result()
        assert (told.returncode, "query.timeout" in told.stderr) == (1, True), told.stderr
        _until(lambda: postgres(database, _READING) == [(0,)])
        assert server.call("POST", "/v1/pipelines/quick/preview", {"limit": 5}).status == 200

        held = {
            "version": 1,
            "pipeline": "held",
            "source": {"connection": "warehouse", "table": "held"},
            "destination": {"table": "landed"},
        }
        holding = Thread(target=_held, args=(database,))
        holding.start()
        try:
            _until(lambda: postgres(database, _READING) == [(1,)])
            planned = server.call("POST", "/v1/plans", {"documents": [held]})
        finally:
            postgres(database, _END_HOLDING)
            holding.join()
        assert "[query.timeout]" in json.dumps(planned.body)
        planned = server.call("POST", "/v1/plans", {"documents": [held]})
        assert "[query.timeout]" not in json.dumps(planned.body)


@pytest.mark.line("11", "29")
def test_dry_runs_without_an_end_leave_previews_their_places(tmp_path: Path, postgres_server_url: str) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    dry = {"limit": None, "rows": False}
    with new_database(postgres_server_url) as database, serving(tmp_path, HEADRACE_CHECKS__PREVIEWS="4") as server:
        text = postgres_connection(database)
        assert server.call("PUT", "/v1/connections/warehouse", text, kind="application/yaml").status == 201
        _put(server, "endless", "select generate_series(1, 1000000000000) as n, pg_sleep(0.1) is null as s")
        _put(server, "quick", "select 1 as n")
        endless = _asking(server, "endless", json.dumps(dry).encode())
        _until(lambda: postgres(database, _READING) == [(1,)])

        refused = server.call("POST", "/v1/pipelines/quick/preview", dry)
        previewed = [server.call("POST", "/v1/pipelines/quick/preview", {"limit": 5}).status for _ in range(4)]

        assert (refused.status, refused.body["code"]) == (503, "worker.busy")
        assert "A dry run that you asked for" in refused.body["detail"]
        assert previewed == [200] * 4
        endless.close()
        _until(lambda: postgres(database, _READING) == [(0,)])
        assert server.call("POST", "/v1/pipelines/quick/preview", dry).body["counts"]["used"] == 1


_SOURCES = {
    "csv of 100 KB": ("connection: landing, path: rows.csv", 300),
    "postgres of 16 MB": (
        "connection: warehouse, query: \"select g as id, repeat('x', 16700000) as v from generate_series(1, 2) g\"",
        2,
    ),
}


@pytest.mark.line("29")
@pytest.mark.parametrize("kind", _SOURCES)
def test_many_previews_at_once_have_little_memory_together(kind: str, tmp_path: Path, postgres_server_url: str) -> None:
    source, count = _SOURCES[kind]
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("id,v\n" + "".join(f"{n},{'x' * 100_000}\n" for n in range(300)))
    with new_database(postgres_server_url) as database, serving(tmp_path) as server:
        for name, text in (
            ("warehouse", postgres_connection(database)),
            ("landing", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"),
        ):
            assert server.call("PUT", f"/v1/connections/{name}", text, kind="application/yaml").status == 201
        rule = "{rule: between, column: id, min: 1000000, on_violation: quarantine}"
        text = f"version: 1\npipeline: p\nsource: {{{source}}}\nquality: [{rule}]\ndestination: {{table: landed}}\n"
        assert server.call("PUT", "/v1/pipelines/p", text, kind="application/yaml").status == 201

        def preview(_: int) -> Answer:
            return server.call("POST", "/v1/pipelines/p/preview", {"limit": 10_000})

        with grown(server.process.pid, 350), ThreadPoolExecutor(8) as threads:
            for answer in threads.map(preview, range(8)):
                assert (answer.status, answer.body["counts"]["quarantined"]) == (200, count), answer.body
