"""Each failure of a Postgres has its own code, says whether to try again, names what it is about, and shows
no value.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import PlatformError, SchemaMismatchError
from domain.pipelines.spec import Mode
from domain.stores.table import Column, TableName
from infrastructure.stores.postgres.errors import translate
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import new_database
from tests.ports.backends import address_of
from tests.ports.loading import COLUMNS, LANE, TABLE, read_set, target
from tests.somebody import Somebody

SECRET = "s3kr1t"
PREPARED = (
    "create table plain (id int primary key, short varchar(3), n int not null default 1, k int check (k > 0), kind "
    "text)",
    "create table parts (id int, kind text) partition by range (id)",
    "create table depended (id int)",
    "create view dependent as select id from depended",
    "create materialized view empty as select 1 as id with no data",
    "create table barred (id int)",
    "create table _headrace_checkpoint (id int)",
    "create schema closed",
    "create table closed.t (id int)",
    "create view dependent2 as select id from plain",
    "create view joined as select a.id from plain a join plain b using (id)",
    "create sequence numbers",
    "create table ruled (id int)",
    "create rule r as on insert to ruled do instead nothing",
    "create view strict as select id from plain where id > 100 with check option",
    "create type mood as enum ('sad')",
    f"create function complains() returns int language plpgsql as "
    f"$$begin raise exception 'the row {SECRET} is bad'; end$$",
    f"create function complains_oddly() returns int language plpgsql as "
    f"$$begin raise exception 'the row {SECRET} is bad' using errcode = 'HR001'; end$$",
    f"create function pretends(code text) returns int language plpgsql as "
    f"$$begin raise exception 'the row {SECRET} is bad' using errcode = code; end$$",
)
# (statement, code, retryable, what the sentence names)
STATEMENTS = [
    (f"insert into plain values (1, '{SECRET}')", "value.too_long", False, "varchar(3)"),
    (f"select '{SECRET}'::int", "value.invalid", False, "integer"),
    (f"select '{SECRET}'::mood", "value.invalid", False, ""),
    (f"select '{SECRET}'::uuid", "value.invalid", False, "uuid"),
    ("select '99999999999999'::int", "value.out_of_range", False, "integer"),
    ("select 2147483647 + 1", "value.out_of_range", False, "integer"),
    ("select '2024-13-45'::date", "value.out_of_range", False, ""),
    (f"select '{{{SECRET}'::json", "value.invalid", False, "json"),
    ("select 1 / 0", "query.failed", False, "division by zero"),
    ("select (select id from generate_series(1, 2) id)", "query.failed", False, "more than one row"),
    (f"insert into plain (id, n, kind) values (1, null, '{SECRET}')", "destination.constraint", False, "column n"),
    (f"insert into plain (id, k, kind) values (1, -1, '{SECRET}')", "destination.constraint", False, "plain_k_check"),
    (f"insert into plain (id, kind) values (7, ''), (7, '{SECRET}')", "destination.constraint", False, "plain_pkey"),
    (f"insert into parts values (1, '{SECRET}')", "destination.no_partition", False, "parts"),
    ("insert into strict values (1)", "destination.constraint", False, "check option"),
    ("drop table depended", "destination.depended_on", False, "depended"),
    ("select * from empty", "store.not_ready", False, "has not been populated"),
    ("select * from missing", "table.not_found", False, "missing"),
    ("select nothing from plain", "query.invalid", False, "nothing"),
    (
        f"create table wide ({', '.join(f'c{n} int' for n in range(1601))})",
        "store.limit",
        False,
        "at most 1600 columns",
    ),
    (f"select {', '.join('1' for _ in range(1665))}", "store.limit", False, "1664"),
    ("set statement_timeout = '20ms'; select pg_sleep(5)", "query.timeout", False, "statement timeout"),
    ("select pg_cancel_backend(pg_backend_pid()), pg_sleep(1)", "query.canceled", True, ""),
    ("select pg_terminate_backend(pg_backend_pid()), pg_sleep(1)", "store.unavailable", True, ""),
    (
        "begin isolation level repeatable read; set transaction snapshot '00000003-0000001B-1'",
        "snapshot.gone",
        True,
        "",
    ),
    ("begin isolation level repeatable read; set transaction snapshot 'odd'", "snapshot.gone", True, ""),
    ("begin read only; create table other (id int)", "query.not_readonly", False, ""),
    ("set role plain_reader; select * from barred", "store.permission", False, "barred"),
    ("select complains()", "store.function", False, "function or trigger"),
    ("select complains_oddly()", "store.function", False, "function or trigger"),
    ("select pretends('42501')", "store.function", False, "function or trigger"),
    ("select pretends('55000')", "store.function", False, "function or trigger"),
    ("select pretends('22000')", "store.function", False, "function or trigger"),
    ("copy dependent2 from program 'true'", "destination.not_a_table", False, "table behind it"),
    ("begin; lock table empty", "destination.not_a_table", False, "empty"),
    ("insert into joined values (1)", "destination.not_a_table", False, "joined"),
    ("update joined set id = 2", "destination.not_a_table", False, "joined"),
    ("delete from joined", "destination.not_a_table", False, "joined"),
    ("alter table numbers add column n int", "destination.not_a_table", False, "numbers"),
    (
        "merge into ruled using plain on false when not matched then insert values (1)",
        "destination.not_a_table",
        False,
        "rules",
    ),
    ("set role plain_reader; select * from _headrace_checkpoint", "store.permission", False, "GRANT SELECT, INSERT"),
    ("set role plain_reader; select * from closed.t", "store.permission", False, "GRANT USAGE ON SCHEMA"),
    ("set role plain_reader; create table mine (id int)", "store.permission", False, "CREATE too"),
    ("set role plain_reader; alter table barred add n int", "store.permission", False, "member of the owner"),
    ("begin; vacuum plain", "store.transaction", False, "vacuum"),
    ("alter table plain alter column n set data type point using null", "query.invalid", False, ""),
    ("begin; set lock_timeout = '20ms'; lock table held", "store.locked", True, ""),
    ("select xmin from dependent", "query.invalid", False, "xmin"),
    ("select repeat('x', 2000000000)", "store.limit", False, ""),
]


@pytest.fixture(scope="module")
def prepared(postgres_server_url: str) -> Iterator[str]:
    """A database of things that refuse; a session of its own holds one table."""
    with new_database(postgres_server_url) as url, dbapi.connect(url) as holder, holder.cursor() as held:
        for statement in PREPARED:
            held.execute(statement)
        # Roles are the server's: another worker of the suite may have made it, or be about to.
        held.execute(
            "do $$ begin create role plain_reader; exception when duplicate_object or unique_violation then null; "
            "end $$"
        )
        held.execute("create table held (id int)")
        holder.commit()
        held.execute("lock table held")
        yield url
        holder.rollback()


def by_adbc(url: str, statements: list[str], *, streamed: bool) -> PlatformError | None:
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        try:
            for statement in statements:
                cursor.execute(statement)
                if streamed:
                    cursor.fetch_record_batch().read_all()
                else:
                    cursor.fetchall()
        except Exception as error:
            return translate(error)
    return None


def by_asyncpg(url: str, statements: list[str]) -> PlatformError | None:
    async def asked() -> PlatformError | None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return translate(error)
        finally:
            connection.terminate()
        return None

    return asyncio.run(asked())


@pytest.mark.clause("IDataStore", 5)
@pytest.mark.parametrize(
    ("sql", "code", "retryable", "named"), STATEMENTS, ids=[f"{code}-{sql[:24]}" for sql, code, *_ in STATEMENTS]
)
def test_each_refusal_has_its_code_and_its_class_of_retry_on_every_driver(
    prepared: str, sql: str, code: str, retryable: bool, named: str
) -> None:
    statements = sql.split("; ")

    found = [
        by_adbc(prepared, statements, streamed=False),
        by_adbc(prepared, statements, streamed=True),
        by_asyncpg(prepared, statements),
    ]

    for error in found:
        assert error is not None
        assert (error.code, error.retryable) == (code, retryable), error.message
        assert named.lower() in error.message.lower()
        assert SECRET not in error.message
        assert "broke off" not in error.message or code == "store.unavailable"


def test_error_in_the_midst_of_the_rows_is_not_told_as_a_broken_connection(prepared: str) -> None:
    """The driver drops its SQLSTATE there."""
    midst = "from generate_series(1, 20000) n"
    asked = {
        f"select n, case when n < 15000 then n else 1 / 0 end {midst}": "query.failed",
        f"select n, case when n < 15000 then n else '{SECRET}'::int end {midst}": "value.invalid",
        f"select n, case when n < 15000 then n else '99999999999'::text::int end {midst}": "value.out_of_range",
        f"select n, case when n < 15000 then 1 else complains() end {midst}": "store.function",
        f"select n, (select 1 from generate_series(1, 1 + n / 15000)) {midst}": "query.failed",
    }
    for sql, code in asked.items():
        error = by_adbc(prepared, [sql], streamed=True)
        assert error is not None
        assert (error.code, error.retryable, SECRET in error.message) == (code, False, False), error.message


@pytest.mark.parametrize(
    ("values", "code", "named"),
    [
        ({"id": [1, 2], "short": ["a", SECRET]}, "value.too_long", ("short", "varchar(3)")),
        ({"id": [1, 2], "kind": ["a", f"\0{SECRET}"]}, "value.nul", ("kind", "NUL")),
        ({"id": [1, 2], "n": [1, None]}, "destination.constraint", ("column n",)),
    ],
)
def test_rows_that_do_not_fit_name_their_column(
    prepared: str, values: dict[str, list[Any]], code: str, named: tuple[str, ...]
) -> None:
    rows = pa.table({n: pa.array(v, pa.string() if isinstance(v[0], str) else pa.int32()) for n, v in values.items()})
    with dbapi.connect(prepared, autocommit=True) as connection, connection.cursor() as cursor:
        with pytest.raises(Exception) as caught:
            cursor.adbc_ingest("plain", rows, mode="append")
        error = translate(caught.value)

    assert error.code == code
    assert all(name in error.message for name in named), error.message
    assert SECRET not in error.message


class ToldError(Exception):
    """What a driver raises, with any SQLSTATE and any words."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"ERROR:  {message}")
        self.sqlstate = sqlstate
        self.message = message


@given(state=st.from_regex(r"[0-9A-Z]{5}", fullmatch=True), words=st.text(max_size=30))
def test_any_sqlstate_has_an_answer(state: str, words: str) -> None:
    error = translate(ToldError(state, words))

    assert error.code
    assert error.code != "internal"
    assert "{" not in error.message.replace(words.strip().rstrip("."), "")
    if error.code == "store.unavailable":
        assert state.startswith(("08", "57"))


@given(
    state=st.sampled_from(["22P02", "22003", "22007", "22008", "22001", "22021", "22P05", "22023", "2200G", "P0001"]),
    value=st.from_regex(r"[a-zA-Z0-9 .:{}+-]{6,20}", fullmatch=True),
    shape=st.sampled_from(
        [
            'invalid input syntax for type integer: "{}"',
            'value "{}" is out of range for type integer',
            'date/time field value out of range: "{}"',
            'invalid input value for enum mood: "{}"',
            'malformed array literal: "{}"',
            'time zone "{}" not recognized',
        ]
    ),
)
def test_message_about_a_value_never_shows_it(state: str, value: str, shape: str) -> None:
    assert value not in translate(ToldError(state, shape.replace("{}", value))).message


@pytest.mark.parametrize(
    ("native", "value", "code"),
    [
        ("varchar(3)", SECRET, "value.too_long"),
        ("char(3)", SECRET, "value.too_long"),
        ("varchar(3)[]", f"{{a,{SECRET}}}", "value.too_long"),
        ("char(3)[]", f"{{{SECRET}}}", "value.too_long"),
        ("bit(3)", "1010", "value.invalid"),
        ("bit varying(3)", "1010", "value.too_long"),
        ("numeric(40,2)", "1.005", "value.precision"),
        ("numeric(45,2)", "1" * 60, "value.out_of_range"),
        ("timestamp(0)", "2024-01-02 03:04:05.6", "value.precision"),
        ("timestamptz(3)", "2024-01-02 03:04:05.6789+00", "value.precision"),
        ("time(0)", "03:04:05.6", "value.precision"),
        ("interval(0)", "1.5 seconds", "value.precision"),
        ("interval day", "1 day 2 hours", "value.precision"),
        ("inet", SECRET, "value.invalid"),
        ("varchar(3)", "abc  ", None),
        ("numeric(40,2)", "1.500", None),
        ("bit(3)", "101", None),
        ("interval(0)", "2 days", None),
    ],
)
async def test_value_beside_a_json_is_never_cut_or_rounded(
    prepared: str, native: str, value: str, code: str | None
) -> None:
    """With a column that SQL has to cast, the others come by the same statement."""
    store = PostgresDataStore(address_of(prepared))
    with dbapi.connect(prepared, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("drop table if exists cast_beside")
        cursor.execute(f"create table cast_beside (first text, odd {native}, extra jsonb)")
    rows = pa.table({"first": ["a", "b"], "odd": [None, value], "extra": ["{}", '{"a": 1}']})

    try:
        if code is None:
            assert await store.write(TableName("cast_beside"), [rows]) == 2
            return
        with pytest.raises(PlatformError) as caught:
            await store.write(TableName("cast_beside"), [rows])
    finally:
        await store.close()

    assert (caught.value.code, caught.value.retryable) == (code, False), caught.value.message
    assert "column odd" in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("there", ["nothing", "the table", "the type"])
@pytest.mark.parametrize(("shadow", "mode"), [(False, Mode.APPEND), (True, Mode.APPEND), (True, Mode.REPLACE)])
async def test_type_that_is_missing_is_told_with_its_column(
    there: str, shadow: bool, mode: Mode, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    if there != "nothing":
        somebody.does("CREATE TABLE orders (id bigint, note text)")
    if there == "the type":
        somebody.does("CREATE TYPE mood AS ENUM ('sad')")
    planned = read_set(shadow=shadow)
    wanted = target(planned, mode=mode, columns=(*COLUMNS, Column("feeling", "native:mood")))
    async with postgres.owner(LANE, TABLE, 1) as owner:
        await owner.take_over()
        if there == "the type":
            await owner.open_read_set(planned, wanted)
            return
        with pytest.raises(SchemaMismatchError, match="The column feeling has the type mood") as refused:
            await owner.open_read_set(planned, wanted)
    assert refused.value.code == "destination.type_missing"
