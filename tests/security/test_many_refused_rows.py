"""Thousands of refused rows, or some hundreds of a thousand columns, are dealt with in statements, pages and parts of a
bounded size.
"""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from application.identity.access import IssueKey
from application.pipelines.quarantine import QuarantineReviewer
from domain.errors import InvalidInputError
from domain.identity.principal import Role
from domain.loads.quarantine import RefusedState
from domain.pipelines.spec import SourceSpec
from domain.stores.table import Column
from entrypoints.http.app import create_app
from infrastructure.stores import replayed
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.session import DuckDBSession
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.sql.quarantine import Rereads, mark_repaired
from infrastructure.tabular import json_rows
from infrastructure.tabular.json_rows import decoded, encoded, merged_shape, shape_of
from tests.e2e.inside import ME, inside
from tests.ports.loading import LANE, TABLE
from tests.ports.test_quarantine import MINE, OPEN, load, refusing
from tests.ports.test_read_again import Load, judged

pytestmark = pytest.mark.line("29")
_MANY = 1_000
_LONGEST_STATEMENT = 2_000


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = DuckDBDataStore(DuckDBOptions(path=tmp_path / "f.duckdb"))
    await store.open()
    yield store
    await store.close()


async def test_statements_about_many_refused_rows_are_as_long_as_about_few(
    store: DuckDBDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await Load(store, "r1").commits(judged([*range(_MANY)], []))).is_published()
    again = Load(store, "r2")
    lengths: list[int] = []
    execute = DuckDBSession.execute

    def heard(self: DuckDBSession, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        lengths.append(len(sql))
        return execute(self, sql, parameters)

    monkeypatch.setattr(DuckDBSession, "execute", heard)
    async with store._session() as (session, thread):
        rereads = Rereads(session, LANE, again.target, "r2")
        await thread.call(rereads.note, pa.table({"id": range(0, 2 * _MANY, 2)}))
        noted = session.execute('SELECT count(*) FROM "_headrace_quarantine" WHERE "settled_by" = \'r2\'')
        rows = await store.refused_rows(MINE, after=None, limit=_MANY)
        await thread.call(mark_repaired, session, TABLE, LANE, "run", [row.place for row in rows[:-1]])
    assert noted == [(_MANY // 2,)]
    states = [row.state for row in await store.refused_rows(MINE, after=None, limit=_MANY)]
    assert states == [RefusedState.REPAIRED] * (_MANY - 1) + [RefusedState.OPEN]
    assert max(lengths) < _LONGEST_STATEMENT


async def test_a_replay_reads_pages_of_some_rows_and_decodes_them_beside_the_loop(
    store: DuckDBDataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(store, 1, "r1", refusing(*range(7), accepted=(9,)))
    threads: list[threading.Thread] = []

    def heard(*given: Any, **named: Any) -> pa.Table:
        threads.append(threading.current_thread())
        return decoded(*given, **named)

    monkeypatch.setattr(replayed, "decoded", heard)
    monkeypatch.setattr(replayed, "PAGE_ROWS", 3)
    source = SourceSpec(refused=OPEN, key=("read_set", "stream", "seq", "ordinal"))
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=1000, batch_bytes=10**8) as reader:
        sizes = [batch.num_rows async for batch in _data(reader.batches(None))]
        limited = [batch.num_rows async for batch in _data(reader.batches(None, limit=5))]
    assert (sizes, limited) == ([3, 3, 1], [3, 2])
    assert threading.main_thread() not in threads


async def _data(batches: Any) -> Any:
    async for batch in batches:
        yield batch.data


def test_columns_that_were_spelled_otherwise_are_replayed_run_by_run() -> None:
    shapes = [shape_of([Column("id", "int64"), Column(name, "string")], is_text=True) for name in ("Name", "name")]
    assert [column.name for column in merged_shape(shapes[:1])[0]] == ["id", "Name"]
    with pytest.raises(InvalidInputError, match="run by run") as told:
        merged_shape(shapes)
    assert told.value.code == "quarantine.types"


def test_records_are_read_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.table({"id": range(9), "v": [None, "é" * 90, "", *"abcdef"], "n": [[1, None], None, [], *([[2]] * 6)]})
    columns = [Column("id", "int64"), Column("v", "string"), Column("n", "list<int64>"), Column("gone", "int64")]
    records = encoded(rows)
    whole = decoded(records, columns, is_text=False)
    assert whole.select(["id", "v"]).equals(rows.select(["id", "v"]))
    parts: list[int] = []

    def heard(*given: Any, **named: Any) -> pa.Table:
        parts.append(len(given[0]))
        return make(*given, **named)

    make = json_rows._decoded
    monkeypatch.setattr(json_rows, "_decoded", heard)
    monkeypatch.setattr(json_rows, "_LETTERS_AT_ONCE", 80)
    found = decoded(records, columns, is_text=False)
    assert found.equals(whole)
    assert [column.num_chunks for column in found.columns] == [1] * 4
    assert sum(parts) == 9
    assert max(parts) < 4
    assert decoded([], columns, is_text=True).num_rows == 0


async def test_pages_of_refused_rows_are_read_by_turns_of_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the answer's size several times in memory; who asks for thirty at once had all of them there."""
    at_once: list[int] = [0]
    page = QuarantineReviewer.page

    async def counted(*given: Any, **named: Any) -> Any:
        at_once.append(at_once[-1] + 1)
        try:
            return await page(*given, **named)
        finally:
            at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(QuarantineReviewer, "page", counted)
    async with inside(tmp_path, HEADRACE_STORE__KIND="memory") as installation:
        await installation.pipeline("p", "query: select 1 as id", "table: t")
        cases = installation.use_cases
        issued = await cases.keys.issue(ME, IssueKey(Role.DATA_ENGINEER.value))
        app = create_app(cases, title="headrace", max_body_bytes=1024)
        asked = [_asked(app, "/v1/quarantine", b"pipeline=p", issued.key) for _ in range(5)]
        assert await asyncio.gather(*asked) == [200] * 5
    assert (max(at_once), len(at_once)) == (1, 11)


async def _asked(app: Any, path: str, query: bytes, key: str) -> int:
    """The status of a request, whose client stays."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b""})
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": headers, "root_path": ""}
    await app(scope, messages.get, send)
    return statuses[0]
