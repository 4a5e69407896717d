"""Rows that pass unique values among themselves land, as what they are in the end violates nothing."""

import random
from pathlib import Path

import pytest

from domain.errors import SchemaMismatchError
from domain.ports.data_store import IDataStore
from domain.quality.measures import RowChanges
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.e2e.inside import inside
from tests.e2e.projects import postgres_connection
from tests.ports.backends import Backend, cursor_of
from tests.ports.loading import TABLE, read_set
from tests.ports.test_merging import held, load, merging, noted
from tests.somebody import Somebody

ID = "CREATE TABLE orders (id bigint PRIMARY KEY, note text"
SUPPRESS = "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
LAYOUTS = {
    "may be NULL": f"{ID} UNIQUE)",
    "not NULL": f"{ID} NOT NULL UNIQUE, mine text NOT NULL DEFAULT 'mine', made text GENERATED ALWAYS AS (note || '!') STORED)",
    "one NULL": f"{ID} UNIQUE NULLS NOT DISTINCT)",
    "expression": f"{ID} NOT NULL); CREATE UNIQUE INDEX ON orders (lower(note))",
    "excluded": f"{ID}, EXCLUDE (note WITH =))",
    "excluded, not NULL": f"{ID} NOT NULL, EXCLUDE (lower(note) WITH =))",
    "excluded ranges": f"{ID}, EXCLUDE USING gist (int4range(substr(note, 2)::int, substr(note, 2)::int, '[]') WITH &&))",
    "deferrable": f"{ID} NOT NULL UNIQUE DEFERRABLE)",
    "referred to": f"{ID} UNIQUE); CREATE TABLE lines (id bigint REFERENCES orders ON DELETE CASCADE)",
    "trigger": f"{ID} NOT NULL UNIQUE); CREATE TRIGGER t BEFORE UPDATE ON orders FOR EACH ROW {SUPPRESS}",
    "checked": f"{ID} UNIQUE CHECK (note IS NOT NULL))",
    "identity": "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL UNIQUE)",
}  # fmt: skip


def exchanged(chance: random.Random, rows: dict[int, str]) -> tuple[dict[int, str], tuple[int, ...]]:
    """Rows with each other's values, some new ones with values of rows that are deleted."""
    values = list(rows.values())
    chance.shuffle(values)
    deleted = tuple(chance.sample(sorted(rows), 2))
    after = dict(zip(rows, values, strict=True))
    given_up = [after[key] for key in deleted]
    return after | dict(zip((101, 0), given_up, strict=True)), deleted


@pytest.mark.clause("IDataStore", 21)
@pytest.mark.invariant("D8")
async def test_rows_that_exchange_unique_values_land(postgres: PostgresDataStore, somebody: Somebody) -> None:
    chance, fence = random.Random(7), 0
    for layout, script in LAYOUTS.items():
        for shadow in (False, True) if layout in ("may be NULL", "not NULL") else (chance.random() < 0.5,):
            somebody.does("DROP TABLE IF EXISTS lines; DROP TABLE IF EXISTS orders")
            somebody.does(script)
            fence += 2
            before = {number: f"v{number}" for number in range(1, 9)}
            first, second = read_set(shadow=shadow, name=f"r{fence}"), read_set(shadow=shadow, name=f"r{fence}b")
            await load(postgres, fence, first, merging(first, deletes=True), noted(before, deleted=()))
            if layout == "referred to":
                somebody.does("INSERT INTO lines SELECT id FROM orders")
            if layout == "not NULL":
                somebody.does("UPDATE orders SET mine = 'of ' || id")
            rows, deleted = exchanged(chance, before)

            told = await load(
                postgres, fence + 1, second, merging(second, deletes=True), noted(dict(rows), deleted=deleted)
            )

            wanted = {key: value for key, value in rows.items() if key not in deleted}
            assert await held(postgres) == wanted, layout
            updated = 0 if layout == "trigger" else 6  # It suppresses updates that change nothing any more.
            assert told.measures.merged == RowChanges(inserted=2, updated=updated, deleted=2), layout
            if layout == "not NULL":
                found = somebody.does("SELECT id, mine FROM orders WHERE id BETWEEN 1 AND 99")
                assert all(mine == f"of {key}" for key, mine in found)
            if layout == "referred to":
                assert sorted(somebody.does("SELECT id FROM lines")) == [(k,) for k in before if k not in deleted]


@pytest.mark.needs("merges")
@pytest.mark.only("memory", "duckdb")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_rows_of_duckdb_that_exchange_unique_values_land(shadow: bool, store: IDataStore) -> None:
    if isinstance(store, DuckDBDataStore):
        cursor_of(store).execute(f"{ID} NOT NULL UNIQUE)")
    chance, before = random.Random(9), {number: f"v{number}" for number in range(1, 9)}
    first, second = read_set(shadow=shadow), read_set(shadow=shadow, name="r2")
    await load(store, 1, first, merging(first, deletes=True), noted(dict(before), deleted=()))
    rows, deleted = exchanged(chance, before)
    await load(store, 2, second, merging(second, deletes=True), noted(dict(rows), deleted=deleted))

    assert await held(store) == {key: value for key, value in rows.items() if key not in deleted}


@pytest.mark.clause("IDataStore", 21)
async def test_what_cannot_make_way_is_refused_with_the_remedy_and_changes_nothing(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"{ID} NOT NULL UNIQUE); CREATE TABLE lines (id bigint REFERENCES orders ON DELETE CASCADE)")
    somebody.does("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO lines VALUES (1)")
    for fence, (rows, code, remedy) in enumerate(
        [
            ({1: "b", 2: "a"}, "destination.exchange", "DEFERRABLE"),
            ({7: "c"}, "destination.constraint", "publish: run"),
        ],
        start=1,
    ):
        planned = read_set(name=f"r{fence}")
        with pytest.raises(SchemaMismatchError) as refused:
            await load(postgres, fence, planned, merging(planned), noted(dict(rows)))
        assert refused.value.code == code
        assert remedy in refused.value.message
    assert await held(postgres) == {1: "a", 2: "b", 3: "c"}
    assert somebody.does("SELECT * FROM lines") == [(1,)]


@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 15)
async def test_unique_indexes_are_described(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    script = f"{ID} UNIQUE, far int); CREATE UNIQUE INDEX pair ON orders (far, note)"
    if isinstance(store, DuckDBDataStore):
        for statement in script.split(";"):
            cursor_of(store).execute(statement)
    elif backend.needs_postgres:
        somebody = request.getfixturevalue("somebody")
        somebody.does(
            f"{script}; CREATE UNIQUE INDEX low ON orders (lower(note)); ALTER TABLE orders ADD UNIQUE (far) DEFERRABLE"
        )
    described = await store.describe(TABLE)

    assert described is not None
    found = {frozenset(columns) for _, columns in described.uniques}
    assert found == {frozenset({"id"}), frozenset({"note"}), frozenset({"far", "note"})}
    assert described.unique_besides(["id"]) is not None
    assert described.unique_besides(["id"], {"id", "other"}) is None


@pytest.mark.invariant("D1", "D8")
async def test_planner_lets_exchanged_values_land_together_and_says_why(
    project: Path, postgres_database: str, somebody: Somebody
) -> None:
    somebody.does("CREATE TABLE u (id int PRIMARY KEY, email text); INSERT INTO u VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    somebody.does("CREATE TABLE landed (id int PRIMARY KEY, email text NOT NULL UNIQUE)")
    async with inside(project) as headrace:
        for name in ("shop", "warehouse"):
            await headrace.put(postgres_connection(postgres_database, name))
        await headrace.pipeline(
            "users", "connection: shop, table: u", "connection: warehouse, table: landed, mode: merge, key: [id]",
            "run: {batch_rows: 1}\n",
        )  # fmt: skip
        notes = await headrace.notes("users")
        await headrace.report("users")
        somebody.does("UPDATE u SET email = CASE id WHEN 1 THEN 'c' WHEN 2 THEN 'a' ELSE 'b' END")
        report = await headrace.report("users")

    assert any(
        note.startswith("publish: run, because rows that pass on") and "landed_email_key" in note for note in notes
    )
    assert (report["published"], report["merged"]) == ("run", {"inserted": 0, "updated": 3, "deleted": 0})
    assert sorted(somebody.does("SELECT id, email FROM landed")) == [(1, "c"), (2, "a"), (3, "b")]
