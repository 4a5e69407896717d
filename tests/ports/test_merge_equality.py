"""What is one key is for the database to say: the last row of each, however it is spelled, and what merging did is
told.
"""

import random
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import SchemaMismatchError, StoreUnavailableError
from domain.failpoints import arm
from domain.loads.checkpoint import CheckpointUpdate
from domain.pipelines.spec import DeleteMissing, Mode, SourceSpec
from domain.ports.data_store import IDataStore, JudgedBatch, Publication, Target
from domain.quality.measures import Counts, Measures, RowChanges
from domain.quality.rules import StagedChecks
from domain.stores.table import Column, TableName
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.transforms.keys import last_of_each
from tests.ports.backends import Backend, cursor_of
from tests.ports.loading import ACCEPTED, LANE, REFUSED, content, read_set, token_of
from tests.ports.test_merging import held, load, merging, noted
from tests.somebody import Somebody

TABLE, RUN = TableName("merged"), "01890000-0000-7000-8000-000000000000"
# Types with spellings of which the database holds some equal.
ON_POSTGRES = {
    "citext": ["Ann@x", "ann@X", "ANN@X", "bob", "Bob", "ann"],
    "numeric": ["1", "1.0", "1.00", "2", "2.50", "2.5"],
    "numeric(9,2)": ["1", "1.00", "2.5", "3"],
    "interval": ["1 day", "24 hours", "2 days", "1 mon", "30 days", "720:00"],
    "double precision": ["0", "-0", "1.5", "NaN", "nan"],
    "character(6)": ["a", "a ", "ab", "ab  ", "b"],
    'text COLLATE "C"': ["Straße", "straße", "x", "X", "y"],
    "jsonb": ["1", "1.0", '{"a": 1, "b": 2}', '{"b": 2, "a": 1.0}', '"x"'],
    "text": ["a", "a ", "A", "b"],
    "bigint": ["1", "2", "3"],
    "date": ["2024-02-29", "2024-03-01"],
}
ON_DUCKDB = {
    "interval": ["1 day", "24 hours", "2 days", "1 month", "30 days"],
    "double": ["0", "-0", "1.5", "nan"],
    "varchar COLLATE nocase": ["Ann", "ann", "bob", "BOB"],
    "varchar": ["Ann", "ann", "bob"],
    "decimal(9,2)": ["1", "1.00", "2.5"],
    "bigint": ["1", "2", "3"],
}


async def land(
    store: IDataStore, fence: int, target: Target, name: str, batches: list[pa.Table], read: int
) -> Publication:
    """Load batches as a run does: of those that are spelled alike, the last of a batch comes alone."""
    planned = replace(read_set(shadow=target.shadow is not None, name=name))
    async with store.owner(LANE, TABLE, fence) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
        await owner.take_over()
        counts, measures = Counts(), Measures()
        for seq, rows in enumerate(batches, start=1):
            last = last_of_each(rows, target.key)
            repeated = rows.num_rows - last.num_rows
            of_batch = Counts(rows.num_rows, rows.num_rows, 0, rows.num_rows, repeated)
            judged = JudgedBatch(last, REFUSED.empty_table(), of_batch, Measures())
            counts += of_batch
            update = CheckpointUpdate(seq, (str(seq),), counts, measures, is_last=seq == len(batches))
            async with store.writer(LANE, target, name, "0", fence, await token_of(store, table=TABLE)) as writer:
                committed = await writer.commit(judged, update)
            if committed.merged is not None:
                update = update.with_merged(committed.merged)
                counts, measures = update.counts, update.measures
        return await owner.publish(planned, target, StagedChecks(), lambda _: ACCEPTED)


class Database:
    """A backend with a query engine, spoken to beside the store."""

    def __init__(self, store: IDataStore, somebody: Somebody | None) -> None:
        self._store, self._somebody = store, somebody

    def does(self, script: str) -> list[tuple[Any, ...]]:
        if self._somebody is not None:
            return self._somebody.does(script)
        assert isinstance(self._store, DuckDBDataStore)
        cursor = cursor_of(self._store)
        return [row for part in script.split(";") if part.strip() for row in cursor.execute(part).fetchall()]


async def batches_of(store: IDataStore, table: str, rows: int) -> tuple[tuple[Column, ...], list[pa.Table]]:
    source = SourceSpec(table=TableName(table), key=("n",))
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=rows) as reader:
        found = [pa.table(batch.data) async for batch in reader.batches(None)]
    return tuple(Column(name, kind) for name, kind in plan.columns), found


@pytest.mark.needs("merges")
@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.invariant("D6", "D8")
async def test_last_row_of_what_the_database_holds_for_one_key_lands(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    somebody = request.getfixturevalue("somebody") if backend.needs_postgres else None
    database, chance, fence = Database(store, somebody), random.Random(4), 0
    if somebody is not None:
        somebody.does("CREATE EXTENSION citext")
    for kind, pool in (ON_POSTGRES if somebody else ON_DUCKDB).items():
        for shadow in (False, True) if len({*pool}) > 4 else (chance.random() < 0.5,):
            database.does(f"DROP TABLE IF EXISTS merged; DROP TABLE IF EXISTS s; CREATE TABLE s (n bigint, k {kind})")
            database.does(f"CREATE TABLE merged (k {kind}, n bigint)")
            database.does(f"INSERT INTO s VALUES {', '.join(str((n, chance.choice(pool))) for n in range(12))}")
            columns, batches = await batches_of(store, "s", 5)
            fence += 1
            name = f"r{fence}"
            stage = read_set(shadow=shadow).shadow
            target = Target(TABLE, Mode.MERGE, stage, columns, RUN, False, key=("k",))
            told = await land(store, fence, target, name, batches, 12)

            spelled = "k AS spelled" if somebody is None else "k::text AS spelled"
            wanted = database.does(f"SELECT DISTINCT ON (k) {spelled}, n FROM s ORDER BY k, n DESC")
            found = database.does(f"SELECT {spelled}, n FROM merged ORDER BY k")
            assert str(found) == str(wanted), (kind, shadow)  # As text NaN is itself.
            assert told.measures.merged is not None
            written = sum(told.measures.merged.to_json().values())
            assert told.counts.produced - told.counts.deduplicated == written, (kind, shadow, told)
            assert written >= len(wanted)


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_what_a_merge_inserted_updated_and_deleted_is_told_and_remembered(
    shadow: bool, store: IDataStore
) -> None:
    first, second = read_set(shadow=shadow), read_set(shadow=shadow, name="r2")
    before = await load(store, 1, first, merging(first, deletes=True), noted({1: "a", 2: "b", 3: "c"}, deleted=()))
    assert before.measures.merged == RowChanges(inserted=3, updated=0, deleted=0)

    target = merging(second, deletes=True, **({"delete_missing": DeleteMissing.HARD} if shadow else {}))
    publication = await load(
        store, 2, second, target, noted({1: "x", 2: "gone", 7: "never there"}, deleted=(2, 7)), noted({8: "new"}, deleted=())
    )  # fmt: skip

    missing = 1 if shadow else 0  # The key 3 is not read any more.
    assert publication.measures.merged == RowChanges(inserted=1, updated=1, deleted=1 + missing)
    state = await store.lane_state(LANE, first_table())
    assert state.memory.measures.merged == publication.measures.merged


def first_table() -> TableName:
    return TableName("orders")


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
async def test_keys_that_are_no_numbers_are_one_key(store: IDataStore) -> None:
    """NaN is a key like any other, and zero has no sign."""
    target = Target(TABLE, Mode.MERGE, None, (Column("k", "float64"), Column("n", "int64")), RUN, False, key=("k",))
    parts = [[float("nan"), 0.0, 1.0], [float("nan"), -0.0]]
    batches = [pa.table({"k": keys, "n": pa.array([len(keys)] * len(keys), pa.int64())}) for keys in parts]

    await land(store, 1, target, "r1", batches, 5)

    assert sorted((str(abs(row["k"])), row["n"]) for row in await content(store, TABLE)) == [
        ("0.0", 2), ("1.0", 3), ("nan", 2),
    ]  # fmt: skip


ALWAYS = "id bigint GENERATED ALWAYS AS IDENTITY"


@pytest.mark.clause("IDataStore", 14)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_numbers_that_a_table_gives_by_itself_are_written_as_the_source_has_them(
    shadow: bool, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"CREATE TABLE orders ({ALWAYS} PRIMARY KEY, note text)")
    planned = read_set(shadow=shadow)
    for mode in (Mode.APPEND, Mode.MERGE):
        target = replace(merging(planned), mode=mode, key=("id",) if mode is Mode.MERGE else ())
        rows = {7: "a", 9: "b"} if mode is Mode.APPEND else {7: "c", 11: "d"}
        await load(postgres, 1 if mode is Mode.APPEND else 2, replace(planned, id=f"r{mode}"), target, noted(rows))
    assert await held(postgres) == {7: "c", 9: "b", 11: "d"}

    replacing = replace(read_set(shadow=True), id="replacing")
    await load(
        postgres, 3, replacing, replace(merging(replacing), mode=Mode.REPLACE, replaces=True, key=()), noted({5: "e"})
    )
    assert await held(postgres) == {5: "e"}


@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_key_of_a_number_and_a_text_of_many_spellings_is_written_as_the_source_has_it(
    shadow: bool, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"CREATE EXTENSION citext; CREATE TABLE orders ({ALWAYS}, note citext, PRIMARY KEY (id, note))")
    for fence, note in enumerate(("A", "a"), start=1):
        planned = replace(read_set(shadow=shadow), id=f"r{fence}")
        await load(postgres, fence, planned, replace(merging(planned), key=("id", "note")), noted({7: note}))
        assert await held(postgres) == {7: note}


@pytest.mark.clause("IDataStore", 31)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_key_in_another_spelling_takes_no_reference_from_others(
    shadow: bool, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does("CREATE EXTENSION citext; CREATE TABLE orders (id bigint, note citext PRIMARY KEY)")
    somebody.does("CREATE TABLE lines (note citext REFERENCES orders ON UPDATE SET NULL)")
    somebody.does("INSERT INTO orders VALUES (1, 'A'); INSERT INTO lines VALUES ('A')")
    for fence, (note, is_alike) in enumerate((("A", True), ("a", False)), start=1):
        planned = replace(read_set(shadow=shadow), id=f"r{fence}")
        loading = load(postgres, fence, planned, replace(merging(planned), key=("note",)), noted({fence + 1: note}))
        if is_alike:
            await loading
            continue
        with pytest.raises(SchemaMismatchError) as refused:
            await loading
        assert refused.value.code == "destination.referred"
    assert somebody.does("SELECT id, note::text FROM orders") == [(2, "A")]
    assert somebody.does("SELECT note::text FROM lines") == [("A",)]


@pytest.mark.clause("IDataStore", 14)
async def test_row_with_another_number_than_the_table_gave_it_is_refused_by_name(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"CREATE TABLE orders ({ALWAYS}, note text UNIQUE); INSERT INTO orders (note) VALUES ('a'), ('b')")
    planned = read_set()
    target = replace(merging(planned), key=("note",))
    await load(postgres, 1, planned, target, noted({1: "a", 2: "b", 8: "c"}))
    with pytest.raises(SchemaMismatchError) as refused:
        await load(postgres, 2, replace(planned, id="r2"), target, noted({2: "a"}))

    assert refused.value.code == "destination.identity"
    assert await held(postgres) == {1: "a", 2: "b", 8: "c"}


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.invariant("D3", "D6")
@pytest.mark.parametrize("point", ["batch.commit_sent", "batch.before_commit", "batch.mid_rows"])
async def test_what_a_merge_did_is_told_once_however_its_commit_went(
    point: str, store: IDataStore, backend: Backend
) -> None:
    if backend.name == "memory":
        return  # Nothing is lost on the way to it.
    planned, struck = read_set(), list[str]()

    def strike(name: str) -> None:
        if name == point and not struck:
            struck.append(name)
            raise StoreUnavailableError(f"The failpoint {name} fired.")

    arm(strike)
    try:
        told = await load(store, 1, planned, merging(planned), noted({1: "a", 2: "b"}), noted({2: "c", 3: "d"}))
    finally:
        arm(None)

    assert struck == [point]
    assert told.measures.merged == RowChanges(inserted=3, updated=1, deleted=0)
    assert await held(store) == {1: "a", 2: "c", 3: "d"}
