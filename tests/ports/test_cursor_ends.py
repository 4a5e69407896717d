"""Where reads by a cursor end on Postgres: below what is open, whoever may see it and whatever the cursor counts in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import TableName
from infrastructure.stores import cursor_ends
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.cursor_reading import Reading, all_go_on
from tests.somebody import Somebody, somebody_in

PAST = "'2026-01-01 12:00:00.000001+00'::timestamptz"
# The cursor of each table: its type, what it is when nothing is said, and the spec.
CURSORS = {
    "moments": ("timestamptz", "now()", CursorSpec("at")),
    "seconds": ("timestamptz(0)", "now()", CursorSpec("at")),
    "west": ("timestamp", "now() AT TIME ZONE 'America/New_York'", CursorSpec("at")),
    "east": ("timestamp", "clock_timestamp() AT TIME ZONE 'Asia/Kathmandu'", CursorSpec("at")),
    "declared": (
        "timestamp",
        "now() AT TIME ZONE 'Australia/Lord_Howe'",
        CursorSpec("at", timezone="Australia/Lord_Howe"),
    ),
    "numbers": ("bigint", "nextval('numbers_at_seq')", CursorSpec("at")),
}


@pytest.fixture
def plain_url(postgres_database: str, somebody: Somebody) -> Iterator[str]:
    """The same database for a role that may read tables and what their sequences have given, and nothing else."""
    name = f"plain_{urlsplit(postgres_database).path.lstrip('/')}"
    somebody.does(f"CREATE ROLE {name} LOGIN")
    for what in ("TABLES", "SEQUENCES"):
        somebody.does(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON {what} TO {name}")
    yield postgres_database.replace("postgres@", f"{name}@")
    somebody.does(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
async def plain(plain_url: str) -> AsyncIterator[PostgresDataStore]:
    """A store of the plain role."""
    store = PostgresDataStore(address_of(plain_url))
    await store.open()
    yield store
    await store.close()


@contextmanager
def hurry() -> Iterator[None]:
    """Let plans wait for young transactions only for a moment, where they would not end in time anyway."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cursor_ends, "WAIT_SECONDS", 0.2)
        yield


@pytest.fixture
def tables(somebody: Somebody) -> list[str]:
    """A table per kind of cursor with two rows of long ago."""
    somebody.does("CREATE SEQUENCE numbers_at_seq")
    for name, (kind, default, _) in CURSORS.items():
        somebody.does(f"CREATE TABLE {name} (id bigint PRIMARY KEY, at {kind} NOT NULL DEFAULT ({default}))")
        old = "nextval('numbers_at_seq')" if kind == "bigint" else f"{PAST}::{kind}"
        somebody.does(f"INSERT INTO {name} VALUES (1, {old}); INSERT INTO {name} VALUES (2, {old})")
    return list(CURSORS)


def inserted(tables: list[str], key: int) -> str:
    return ";".join(f"INSERT INTO {name} (id) VALUES ({key})" for name in tables)


BEGINNINGS = {
    "writes and stays open": ("BEGIN; SAVEPOINT a; {row}; RELEASE a", "COMMIT"),
    "reads first": ("BEGIN; SELECT count(*) FROM moments", "{row}; COMMIT"),
    "is prepared": ("BEGIN; {row}; PREPARE TRANSACTION 'p'", "COMMIT PREPARED 'p'"),
}


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("kind", BEGINNINGS)
async def test_rows_of_a_transaction_that_commits_late_are_read_once(
    kind: str,
    postgres: PostgresDataStore,
    plain: PostgresDataStore,
    somebody: Somebody,
    tables: list[str],
    postgres_database: str,
) -> None:
    if kind == "is prepared" and somebody.does("SELECT current_setting('max_prepared_transactions')") == [("0",)]:
        pytest.skip("this server prepares no transactions")
    begins, ends = (text.format(row=inserted(tables, 3)) for text in BEGINNINGS[kind])
    readings = [Reading(store, name, CURSORS[name][2]) for store in (postgres, plain) for name in tables]
    await all_go_on(readings)

    with somebody_in(postgres_database) as late:
        late.does(begins)
        somebody.does(inserted(tables, 4))
        with hurry():
            await all_go_on(readings)
        assert all(3 not in reading.ids for reading in readings)
        held = [reading for reading in readings if 4 not in reading.ids]
        assert len(held) >= len(readings) - 2
        assert all(reading.end.held_back for reading in held)
        late.does(ends)
    await all_go_on(readings)

    assert [sorted(reading.ids) for reading in readings] == [[1, 2, 3, 4]] * len(readings)


@pytest.mark.clause("IDataStore", 30)
async def test_a_first_read_of_a_plain_role_stops_where_the_server_began(
    plain: PostgresDataStore, somebody: Somebody, tables: list[str], postgres_database: str
) -> None:
    """What is open and hidden began after its server did, so what is older is read; numbers tell no such thing."""
    somebody.does(inserted(tables, 3))
    readings = [Reading(plain, name, CURSORS[name][2]) for name in ("moments", "numbers")]

    with somebody_in(postgres_database) as late:
        late.does("BEGIN; SELECT 1")
        with hurry():
            await all_go_on(readings)
        assert [reading.ids for reading in readings] == [[1, 2], []]
        pid = late.does("SELECT pg_backend_pid()")[0][0]
        assert all(f"session {pid}" in reading.end.held_back[0] for reading in readings)
        assert all("pg_read_all_stats" in reading.end.held_back[0] for reading in readings)
        late.does("COMMIT")
    await all_go_on(readings)

    assert [reading.ids for reading in readings] == [[1, 2, 3]] * 2


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("role", ["sees all", "plain"])
async def test_patience_passes_over_long_readers_and_never_over_writers(
    role: str,
    postgres: PostgresDataStore,
    plain: PostgresDataStore,
    somebody: Somebody,
    tables: list[str],
    postgres_database: str,
) -> None:
    store = plain if role == "plain" else postgres
    somebody.does("CREATE VIEW shown AS SELECT * FROM moments; CREATE TABLE elsewhere (id int)")
    impatient = CursorSpec("at", patience=timedelta())

    async def read(cursor: CursorSpec = impatient) -> Reading:
        reading = Reading(store, "shown", cursor)
        with hurry():
            await reading.goes_on()
        return reading

    with somebody_in(postgres_database) as late:
        late.does("BEGIN; INSERT INTO elsewhere VALUES (1)")
        somebody.does(inserted(tables, 3))
        passed = await read()
        waiting = await read(replace(impatient, patience=None))
        late.does("INSERT INTO moments VALUES (4)")
        writing = await read()
        late.does("ROLLBACK")

    assert passed.ids == [1, 2, 3]
    assert "cursor.patience" in passed.end.assumed[0]
    assert waiting.ids == [1, 2]
    assert waiting.end.held_back
    assert not waiting.end.assumed
    assert writing.ids == [1, 2]
    assert writing.end.held_back
    assert not writing.end.assumed


@pytest.mark.clause("IDataStore", 30)
async def test_other_databases_and_reads_of_ours_hold_nothing_back(
    postgres: PostgresDataStore,
    plain: PostgresDataStore,
    somebody: Somebody,
    tables: list[str],
    postgres_server_url: str,
) -> None:
    somebody.does(inserted(tables, 3))
    async with AsyncExitStack() as open_for_long:
        elsewhere = open_for_long.enter_context(somebody_in(f"{postgres_server_url}/postgres"))
        elsewhere.does("BEGIN; SELECT count(*) FROM pg_class")
        await open_for_long.enter_async_context(postgres.snapshot(SourceSpec(table=TableName("moments")), readers=2))
        readings = [Reading(store, name, CURSORS[name][2]) for store in (postgres, plain) for name in tables]
        await all_go_on(readings)
        elsewhere.does("ROLLBACK")

    assert [reading.ids for reading in readings] == [[1, 2, 3]] * len(readings)
    assert not [reading.end.sentences for reading in readings if reading.end.sentences]


async def test_a_prepared_transaction_counts_where_it_has_written(
    plain: PostgresDataStore, somebody: Somebody, tables: list[str], postgres_database: str
) -> None:
    if somebody.does("SELECT current_setting('max_prepared_transactions')") == [("0",)]:
        pytest.skip("this server prepares no transactions")
    numbers, moments = (Reading(plain, name, CursorSpec("at", patience=timedelta())) for name in ("numbers", "moments"))
    with somebody_in(postgres_database) as late:
        late.does("BEGIN; INSERT INTO numbers (id) VALUES (3); PREPARE TRANSACTION 'left standing'")

    with hurry():
        await all_go_on([numbers, moments])
    somebody.does("COMMIT PREPARED 'left standing'")

    assert moments.ids == [1, 2]
    assert numbers.ids == []
    assert "'left standing'" in numbers.end.held_back[0]
    assert await numbers.goes_on() == [1, 2, 3]


@pytest.mark.clause("IDataStore", 30)
async def test_a_table_that_is_quiet_is_complete_as_of_now(postgres: PostgresDataStore, tables: list[str]) -> None:
    readings = [Reading(postgres, name, CURSORS[name][2]) for name in tables]
    await all_go_on(readings)
    before = [(reading.watermark, reading.end.complete_as_of) for reading in readings]

    await all_go_on(readings)

    for reading, (watermark, complete) in zip(readings, before, strict=True):
        assert reading.ids == [1, 2]
        assert reading.watermark == watermark
        assert complete
        assert (reading.end.complete_as_of or "") > complete


async def test_a_limited_read_is_no_more_complete_than_before(
    postgres: PostgresDataStore, somebody: Somebody, tables: list[str]
) -> None:
    somebody.does("UPDATE numbers SET at = id")
    reading = Reading(postgres, "numbers", CursorSpec("at"))

    assert await reading.goes_on(limit=1) == [1]
    assert reading.end.complete_as_of is None
    assert await reading.goes_on(limit=1) == [2]
    assert reading.end.complete_as_of


async def test_wall_times_hold_back_counts_from_when_the_greatest_was_first_seen(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(
        "CREATE TABLE walls (id int PRIMARY KEY, at timestamp); "
        "INSERT INTO walls VALUES (1, '2026-01-01 10:00:00.5'), (2, '2026-01-01 10:00:01.5')"
    )
    held = Reading(postgres, "walls", CursorSpec("at", hold_back=timedelta(milliseconds=500)))

    assert await held.goes_on() == [1]
    while not await held.goes_on():
        await asyncio.sleep(0.05)
    assert held.ids == [1, 2]


async def test_a_date_of_today_is_not_read_before_it_is_over_everywhere(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(
        "CREATE TABLE days (id int PRIMARY KEY, at date); INSERT INTO days SELECT 1, now() AT TIME ZONE 'UTC'; "
        "INSERT INTO days SELECT 2, now() AT TIME ZONE 'UTC' - interval '3 days'"
    )
    plain, declared = (
        Reading(postgres, "days", CursorSpec("at")),
        Reading(postgres, "days", CursorSpec("at", timezone="UTC")),
    )

    await all_go_on([plain, declared])

    assert plain.ids == declared.ids == [2]


UNKNOWN = {
    "a materialized view": "CREATE MATERIALIZED VIEW {s} AS SELECT * FROM moments",
    "calls f": (
        "CREATE FUNCTION f() RETURNS SETOF moments LANGUAGE sql VOLATILE AS 'SELECT * FROM moments'; "
        "CREATE VIEW {s} AS SELECT * FROM f()"
    ),
    "keeps 20 numbers": "CREATE TABLE {s} (id bigint PRIMARY KEY, at bigint GENERATED BY DEFAULT AS IDENTITY (CACHE 20))",
    "keeps 30 numbers": "CREATE SEQUENCE n CACHE 30; CREATE TABLE {s} (id bigint PRIMARY KEY, at int DEFAULT nextval('n'))",
    "counts down": "CREATE TABLE {s} (id bigint PRIMARY KEY, at bigint GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1))",
    "a foreign table": (
        "CREATE EXTENSION file_fdw; CREATE SERVER o FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE far "
        "(id bigint, at timestamptz) SERVER o OPTIONS (filename '/dev/null'); "
        "CREATE VIEW {s} AS SELECT * FROM moments UNION ALL SELECT * FROM far"
    ),
    "the clock of a worker": "CREATE TABLE {s} (id bigint PRIMARY KEY, _headrace_loaded_at timestamptz)",
}


@pytest.mark.clause("IDataStore", 30)
async def test_what_a_source_cannot_tell_is_said_and_a_strict_cursor_refuses_it(
    plain: PostgresDataStore, somebody: Somebody, tables: list[str]
) -> None:
    found = {}
    for number, (what, script) in enumerate(UNKNOWN.items()):
        somebody.does(script.format(s=f"s{number}"))
        cursor = CursorSpec("_headrace_loaded_at" if "worker" in what else "at")
        found[what] = reading = Reading(plain, f"s{number}", cursor)
        with pytest.raises(InvalidInputError) as refused:
            await Reading(plain, f"s{number}", replace(cursor, is_strict=True)).goes_on()
        assert refused.value.code == "cursor.unknown"
        await reading.goes_on()

    for what, reading in found.items():
        [said] = reading.end.unknown
        assert what in said
        assert ": " in said  # What to do follows.
