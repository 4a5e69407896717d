"""A value of hundreds of megabytes in a Postgres: its row is refused by name, and is never in this process."""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import PlatformError, WorkFailedError
from domain.loads.way import Passage
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.stores.postgres.row_size import has_room
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import new_database, postgres
from tests.e2e.api import Server, serving
from tests.e2e.projects import postgres_connection
from tests.ports.backends import address_of

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024
HUGE = 100_000_000
NULLS = "array_fill(null::int, array[{}])"  # A bit each where they are stored.
LONG_NUMBERS = "('[' || repeat('1e131071,', {}) || '1]')::jsonb"
# What a value is, with its length as sent in the braces; and how much of that length one of them is.
KINDS: dict[str, tuple[str, int]] = {
    "text": ("repeat('x', {})", 1),
    "text of two bytes each": ("repeat('é', {})", 2),
    "varchar": ("repeat('x', {})::varchar", 1),
    "varchar(n)": ("repeat('x', {})::varchar(9000000)", 1),
    "char": ("lpad('x', {0})::char({0})", 1),
    "bytea": ("decode(repeat('00', {}), 'hex')", 1),
    "json": ("('\"' || repeat('x', {}) || '\"')::json", 1),
    "jsonb": ("('\"' || repeat('x', {}) || '\"')::jsonb", 1),
    "jsonb of long numbers": (LONG_NUMBERS, 131_073),
    "array": ("array_fill(7, array[{}])", 2),
    "array of nothing": (NULLS, 5),
    "array of long numbers": ("array_fill(1e131071::numeric, array[{}])", 131_073),
    "text array": ("array[repeat('x', {})]", 1),
    "row": ("row(repeat('x', {}))::pair", 1),
    "bits": ("repeat('1', {})::varbit", 1),
    "domain": ("repeat('x', {})::words", 1),
}


@pytest.fixture(scope="module")
def database(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        postgres(url, "create domain words as text")
        postgres(url, "create type pair as (a text)")
        yield url


@contextmanager
def grown(pid: int | str, most_mb: int) -> Iterator[None]:
    """Let a process take only so much more than it has, at any time."""
    place = Path(f"/proc/{pid}")
    gc.collect()
    pa.default_memory_pool().release_unused()
    (place / "clear_refs").write_text("5")
    before = peak(place)
    yield
    assert peak(place) - before < most_mb


def peak(place: Path) -> int:
    line = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


async def read(url: str, source: SourceSpec, *, size: int = MIB, **options: Any) -> pa.Table:
    """Read a source decoded."""
    store = PostgresDataStore(address_of(url))
    try:
        plan = await store.plan(source, lo=None, limit=None)
        async with store.reader(source, plan, plan.streams[0], batch_rows=100, batch_bytes=size) as reader:
            return pa.concat_tables([pa.table(batch.data) async for batch in reader.batches(None, **options)])
    finally:
        await store.close()


def made(url: str, name: str, definition: str) -> SourceSpec:
    postgres(url, f"drop table if exists {name} cascade")
    postgres(url, f"create table {name} as {definition}")
    return SourceSpec(table=TableName(name))


@pytest.mark.parametrize("kind", KINDS)
async def test_rows_are_refused_by_the_server_whatever_their_type(kind: str, database: str) -> None:
    value, unit = KINDS[kind]
    for size, is_refused in ((2 * MIB, True), (700_000, False)):
        small = value.format(max(1, size // 1000 // unit))
        source = made(database, "kinds", f"select 1 as id, {small} as a, {value.format(size // unit)} as v")
        for asked in (source, SourceSpec(query="select id, a, v from kinds")):
            if is_refused:
                with pytest.raises(WorkFailedError, match="most of it in the column v") as caught:
                    await read(database, asked)
                assert caught.value.code == "source.row_too_large"
            else:
                rows = await read(database, asked)
                cast = "v" if rows.schema.field("v").type == pa.binary() else "v::text"
                assert [rows["v"][0].as_py()] == [v for (v,) in postgres(database, f"select {cast} from kinds")]


async def test_of_many_columns_the_sum_counts_and_the_longest_is_named(database: str) -> None:
    half = "repeat('x', 500000)"
    wide = ", ".join(f"'y'::text as c{number}" for number in range(1_590))
    for query, column in (
        (f"select {half} as a, null::text as b, repeat('z', 600000) as c", "c"),
        (f"select {wide}, {half} as a, {half} || 'x' as z, null::text as n, {half} as b", "z"),
    ):
        source = made(database, "many", query)
        with pytest.raises(WorkFailedError, match=f"most of it in the column {column};") as caught:
            await read(database, source)
        assert caught.value.code == "source.row_too_large"
        assert (await read(database, source, size=2 * MIB)).num_rows == 1


async def test_only_rows_that_are_asked_for_count_and_their_order_stays(database: str) -> None:
    made(database, "places", f"select n as id, case n when 500 then repeat('x', {2 * MIB}) else 'v' || n end as v "
         "from generate_series(1, 2000) n order by n % 7")  # fmt: skip
    postgres(database, "alter table places add primary key (id)")
    for source in (
        SourceSpec(table=TableName("places"), key=("id",)),
        SourceSpec(query="select id, v, id::text || '-' as t from places", key=("id",)),
        SourceSpec(query="select id, v, id::numeric as m from places", key=("m", "id")),
    ):
        rows = await read(database, source, limit=499)
        assert rows["id"].to_pylist() == list(range(1, 500))
        with pytest.raises(WorkFailedError) as caught:
            await read(database, source, limit=500)
        assert caught.value.code == "source.row_too_large"
        assert (await read(database, source, size=4 * MIB))["id"].to_pylist() == list(range(1, 2001))


@pytest.mark.parametrize(("value", "code"), [("1 / (n - 3)", "query.failed"), ("('x' || n)::int", "value.invalid")])
async def test_errors_of_a_query_stay_what_they_are(value: str, code: str, database: str) -> None:
    postgres(database, "create table if not exists given as select n, repeat('x', n) as v from generate_series(0, 3) n")
    with pytest.raises(PlatformError) as caught:
        await read(database, SourceSpec(query=f"select n, v, {value} as d from given"))
    assert caught.value.code == code


async def test_what_no_row_has_is_not_computed(database: str) -> None:
    query = SourceSpec(query=f"select n, repeat('x', {HUGE}) as v from generate_series(1, 3) as s(n) where n > 5")
    store = PostgresDataStore(address_of(database))
    assert [batch async for batch in store.read(query, batch_rows=10)] == []
    await store.close()


def test_tables_are_measured_only_where_their_files_have_room(database: str) -> None:
    def may(table: str, *natives: str, most: int = 64 * MIB) -> bool:
        session.execute("ROLLBACK")
        return has_room(session, table, natives, most)

    session = PostgresSession(address_of(database), "sizes")
    try:
        made(database, "short", "select n as id, 'v' || n as v from generate_series(1, 50000) n")
        assert not may("short", "integer", "text")
        assert may("short", "integer", "jsonb")  # Which may be written out longer than it is stored.
        assert may("short", "text", most=MIB)
        made(database, "packed", "select repeat('x', 100000000) as v")
        assert may("packed", "text")
        postgres(database, "create view seen as select id, v from short")
        assert may("seen", "integer", "text")
        postgres(database, "create table computed (a int, v text generated always as (repeat('x', a)) virtual)")
        assert may("computed", "integer", "text")
        postgres(database, "create table parts (id int, v text) partition by range (id)")
        postgres(database, "create table parts_1 partition of parts for values from (0) to (9)")
        assert not may("parts", "integer", "text")
        postgres(database, "insert into parts select 1, repeat('x', 100000000)")
        assert may("parts", "integer", "text")
    finally:
        session.close()


async def test_what_passes_undecoded_is_never_gathered_either(database: str) -> None:
    made(
        database,
        "passing",
        f"select n as id, repeat('x', case n when 2 then {HUGE} else 900000 end) as v from generate_series(1, 2) n",
    )
    postgres(database, "alter table passing add primary key (id)")
    source = SourceSpec(table=TableName("passing"), key=("id",))
    store = PostgresDataStore(address_of(database))
    plan = await store.plan(source, lo=None, limit=None)
    for seen in ((), ("v",)):
        async with store.reader(source, plan, plan.streams[0], batch_rows=1, batch_bytes=MIB) as reader:
            ranges = reader.encoded(None, Passage(("id", "v"), seen=seen))
            assert (await anext(ranges)).num_rows == 1
            with grown("self", 60), pytest.raises(WorkFailedError) as caught:
                await anext(ranges)
        assert caught.value.code == "source.row_too_large"
    await store.close()


def put(server: Server, name: str, source: str, more: str = "") -> None:
    text = (
        f"version: 1\npipeline: {name}\nsource: {{connection: warehouse, {source}}}\ndestination: {{connection: "
        f"default, table: {name}}}\n{more}"
    )
    answer = server.call("PUT", f"/v1/pipelines/{name}", text, kind="application/yaml")
    assert answer.status == 201, answer.body


def test_previews_and_runs_of_huge_cells_leave_the_server_as_it_is(tmp_path: Path, database: str) -> None:
    made(database, "held", f"select repeat('x', {HUGE}) as v")
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    with serving(tmp_path, HEADRACE_CHECKS__PREVIEWS="8") as server:
        text = postgres_connection(database)
        assert server.call("PUT", "/v1/connections/warehouse", text, kind="application/yaml").status == 201
        put(server, "made", f"query: \"select repeat('x', {HUGE}) as v from generate_series(1, 20)\"")
        put(server, "kept", "table: held")
        put(server, "below", "query: \"select repeat('x', 15000000) as v\"")
        assert server.call("POST", "/v1/pipelines/below/preview", {"limit": 5}).status == 200
        with grown(server.process.pid, 300), ThreadPoolExecutor(8) as threads:
            asked = threads.map(
                lambda name: server.call("POST", f"/v1/pipelines/{name}/preview", {"limit": 20}), ["made", "kept"] * 4
            )
            assert {(answer.status, answer.body["code"]) for answer in asked} == {(422, "source.row_too_large")}
            for name in ("made", "kept"):
                run = server.wait_for(server.call("POST", f"/v1/pipelines/{name}/trigger", {}).body["id"])
                assert (run["state"], run["error"]["code"]) == ("failed", "source.row_too_large")
                assert "column v" in run["error"]["message"]
            below = server.wait_for(server.call("POST", "/v1/pipelines/below/trigger", {}).body["id"])
            assert below["state"] == "succeeded", below
