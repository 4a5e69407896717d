"""Headrace's own tables lie where others are at home: what they make of them, or write into them, ends a run by name and
never as a success without its rows, a run without an end, or an internal error.
"""

from collections.abc import AsyncIterator, Callable

import pytest

from domain.errors import StoreRefusedError
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.ports.backends import address_of
from tests.ports.loading import LANE, TABLE, batch, commit, opened, published, read_set, rows

pytestmark = pytest.mark.line("29")
NOTHING = "create function nothing() returns trigger language plpgsql as 'begin return null; end'"
SAME = "create function nothing() returns trigger language plpgsql as 'begin return new; end'"
READ_SET = read_set()
Act = Callable[..., None]


@pytest.fixture
async def store(postgres_database: str) -> AsyncIterator[PostgresDataStore]:
    store = PostgresDataStore(address_of(postgres_database))
    await opened(store, 1, READ_SET)  # It makes the tables.
    yield store
    await store.close()


@pytest.fixture
def does(postgres_database: str) -> Act:
    def does(*statements: str) -> None:
        for statement in statements:
            postgres(postgres_database, statement)

    return does


def trigger(table: str, event: str) -> str:
    return f"create trigger before_{event} before {event} on {table} for each row execute function nothing()"


async def load(store: PostgresDataStore, fence: int = 2) -> None:
    """A whole run, of which one row is refused."""
    planned = read_set(name=f"r{fence}")
    await opened(store, fence, planned)
    await commit(store, fence, planned, 1, batch(rows(1), refused=1), is_last=True)
    await published(store, fence, planned)


CHECKPOINT, QUARANTINE = "_headrace_checkpoint", "_headrace_quarantine"
HOSTILE = {
    "fences are not put": trigger(CHECKPOINT, "update"),
    "streams are not written": trigger(CHECKPOINT, "insert"),
    "refused rows are not written": trigger(QUARANTINE, "insert"),
    "refused rows are not opened": trigger(QUARANTINE, "update"),
    "updates lead nowhere": f"create rule r as on update to {QUARANTINE} do instead nothing",
}


@pytest.mark.parametrize("sql", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_made_of_our_rows_ends_the_run(store: PostgresDataStore, does: Act, sql: str) -> None:
    does(NOTHING, sql)

    with pytest.raises(StoreRefusedError, match=r"_headrace_.* does not hold what is written") as caught:
        await load(store)

    assert caught.value.code == "destination.records"


async def test_triggers_that_leave_rows_as_they_are_are_no_hindrance(
    store: PostgresDataStore, does: Act, postgres_database: str
) -> None:
    does(SAME, *(sql.replace("instead nothing", "also notify done") for sql in HOSTILE.values()))

    await load(store)

    assert postgres(postgres_database, f"select state from {QUARANTINE}") == [("open",)]


async def test_heads_that_are_not_written_end_the_run(store: PostgresDataStore, does: Act) -> None:
    does(NOTHING, f"delete from {CHECKPOINT}", trigger(CHECKPOINT, "insert"))

    with pytest.raises(StoreRefusedError) as caught:
        await load(store)

    assert caught.value.code == "destination.records"


DAMAGES = (
    "stats = '[1]'",
    "stats = 'x'",
    "stats = '{\"read_set\": 5}'",
    'stats = \'{"read_set": {"id": 1}}\'',
    "stats = repeat('[', 100000)",
    "fence = 9223372036854775807",
    "seq = 9223372036854775807",
    "seq = -1",
    "read = -5",
)


async def test_what_somebody_writes_into_our_rows_is_told(store: PostgresDataStore, does: Act) -> None:
    does(f"create table kept as select * from {CHECKPOINT}")
    for damage in DAMAGES:
        does(f"update {CHECKPOINT} set {damage}")

        with pytest.raises(StoreRefusedError, match="not as Headrace writes them") as caught:
            await store.lane_state(LANE, TABLE)

        assert caught.value.code == "destination.records"
        does(f"delete from {CHECKPOINT}", f"insert into {CHECKPOINT} select * from kept")
    does(f"update {CHECKPOINT} set {DAMAGES[0]}")
    with pytest.raises(StoreRefusedError):
        await load(store)
    does(f"delete from {CHECKPOINT}")
    await load(store)
