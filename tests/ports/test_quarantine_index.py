"""The index of refused rows on Postgres: there where it can be had at once, and never waited for."""

from uuid import uuid4

import pytest

from infrastructure.stores.postgres.channel import Channel
from infrastructure.stores.postgres.internal import INDEX
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres as executed
from tests.ports.backends import address_of
from tests.ports.loading import LANE, TABLE, opened, read_set
from tests.ports.test_quarantine import MINE, load, refusing, states
from tests.somebody import somebody_in

pytestmark = pytest.mark.invariant("D9")


def _columns(url: str) -> list[str]:
    found = executed(url, f"SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid = to_regclass('{INDEX}')")
    return [definition.partition("(")[2].rstrip(")") for (definition,) in found]


async def _taken_over(store: PostgresDataStore, fence: int) -> None:
    async with store.owner(LANE, TABLE, fence) as owner:
        await owner.take_over()


async def test_refused_rows_have_an_index_in_their_order(postgres: PostgresDataStore, postgres_database: str) -> None:
    await load(postgres, 1, "r1", refusing(2, 1), refusing(3))

    assert _columns(postgres_database) == ["org, pipeline, read_set, stream, seq"]
    assert await states(postgres) == [(2, "open"), (1, "open"), (3, "open")]


async def test_a_table_of_an_earlier_version_gets_it_without_waiting_for_who_writes_to_it(
    postgres: PostgresDataStore, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(postgres, 1, "r1", refusing(1))
    executed(postgres_database, f"DROP INDEX {INDEX}")

    with somebody_in(postgres_database) as writing:
        writing.does("BEGIN; LOCK TABLE _headrace_quarantine IN ROW EXCLUSIVE MODE")
        await _taken_over(postgres, 2)
        writing.does("COMMIT")
    assert _columns(postgres_database) == []

    with monkeypatch.context() as small:  # Of many rows it would take long.
        small.setattr("infrastructure.stores.postgres.internal._INDEXED_BYTES", 1)
        await _taken_over(postgres, 3)
    assert _columns(postgres_database) == []

    await _taken_over(postgres, 4)
    assert len(_columns(postgres_database)) == 1


async def test_a_role_that_does_not_own_the_table_does_without(
    postgres: PostgresDataStore, postgres_database: str
) -> None:
    await load(postgres, 1, "r1", refusing(1))
    role = f"loader{uuid4().hex}"
    with somebody_in(postgres_database) as admin:
        admin.does(f"DROP INDEX {INDEX}; CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        admin.does(f"GRANT ALL ON SCHEMA public TO {role}")
        try:
            plain = PostgresDataStore(address_of(postgres_database.replace("postgres@", f"{role}@")))
            await opened(plain, 2, read_set(name="r2"))
            assert await states(plain) == [(1, "open")]
            await plain.close()
        finally:
            admin.does(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert _columns(postgres_database) == []


async def test_a_page_is_measured_by_the_database(postgres: PostgresDataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await load(postgres, 1, "r1", refusing(*range(40)))
    asked = Channel.ask
    answered: list[int] = []

    def noted(self: Channel, *args: object, **options: object) -> list[tuple[object, ...]]:
        answered.append(len(rows := asked(self, *args, **options)))  # type: ignore[arg-type]
        return rows

    monkeypatch.setattr(Channel, "ask", noted)
    page = await postgres.refused_rows(MINE, after=None, limit=30, most_bytes=100)

    assert 1 <= len(page) < 30
    assert max(answered) < 30
