"""A table that is replaced keeps what it had besides its rows."""

import threading
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest

from domain.errors import InvalidInputError, SchemaMismatchError
from domain.pipelines.spec import Mode
from domain.ports.data_store import IDataStore, JudgedBatch
from domain.quality.measures import Counts, Measures
from infrastructure.stores.duckdb.session import DuckDBSession
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.stores.sql.leftovers import drop_rebuilt
from infrastructure.stores.sql.session import Session
from tests.ports.backends import address_of
from tests.ports.loading import COLUMNS, REFUSED, TABLE, read_set, refusal
from tests.ports.test_merging import held, load, merging, noted
from tests.somebody import Somebody


async def replaced(store: IDataStore, fence: int, *batches: dict[int, str | None], refused: int = 0) -> None:
    planned = read_set(shadow=True, name=f"r{fence}")
    landing = noted(batches[0])
    kept_aside = pa.Table.from_pylist([refusal(number) for number in range(refused)], REFUSED)
    counts = landing.counts + Counts(read=refused, quarantined=refused)
    landing = JudgedBatch(landing.accepted, kept_aside, counts, Measures())
    more = [noted(rows) for rows in batches[1:]]
    await load(
        store, fence, planned, replace(merging(planned), mode=Mode.REPLACE, replaces=True, key=()), landing, *more
    )


# What a table may have, and what in the catalog says that it has it still.
OF_CLASS = "SELECT {} FROM pg_class WHERE oid = 'orders'::regclass"
OF_COLUMN = "SELECT {} FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'note'"
HAD = {
    "CREATE PUBLICATION p FOR TABLE orders": "SELECT count(*) FROM pg_publication_rel WHERE prrelid = 'orders'::regclass",
    "ALTER TABLE orders ADD PRIMARY KEY (id); CREATE PUBLICATION p FOR TABLE orders (id) WHERE (id > 0)": "SELECT pg_get_expr(prqual, prrelid), prattrs::text FROM pg_publication_rel",
    "CREATE PUBLICATION p FOR ALL TABLES": "SELECT oid::text FROM pg_class WHERE relname = 'orders'",
    "CREATE PUBLICATION p FOR TABLES IN SCHEMA public": "SELECT oid::text FROM pg_class WHERE relname = 'orders'",
    "ALTER TABLE orders REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE orders": OF_CLASS.format("relreplident"),
    "ALTER TABLE orders REPLICA IDENTITY FULL": OF_CLASS.format("relreplident"),
    "ALTER TABLE orders SET UNLOGGED": OF_CLASS.format("relpersistence"),
    "ALTER TABLE orders SET (fillfactor = 70, autovacuum_enabled = false)": OF_CLASS.format("reloptions::text"),
    "COMMENT ON TABLE orders IS 'keep me'": "SELECT obj_description('orders'::regclass)",
    "COMMENT ON COLUMN orders.note IS 'keep me'": "SELECT col_description('orders'::regclass, 2)",
    "ALTER TABLE orders ALTER note SET STATISTICS 500": OF_COLUMN.format("attstattarget"),
    "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL": OF_COLUMN.format("attstorage"),
    "ALTER TABLE orders ALTER note SET COMPRESSION pglz": OF_COLUMN.format("attcompression"),
    "ALTER TABLE orders ALTER note SET (n_distinct = 5)": OF_COLUMN.format("attoptions::text"),
    "ALTER TABLE orders ALTER note SET DEFAULT 'x'": OF_COLUMN.format("atthasdef"),
    "ALTER TABLE orders ALTER id SET NOT NULL": "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum = 1",
    'ALTER TABLE orders ALTER note TYPE text COLLATE "C"': OF_COLUMN.format("attcollation::text"),
    "GRANT SELECT ON orders TO pg_monitor": OF_CLASS.format("relacl::text"),
    "GRANT SELECT (note) ON orders TO pg_monitor": OF_COLUMN.format("attacl::text"),
    "ALTER TABLE orders OWNER TO pg_monitor": OF_CLASS.format("relowner::regrole::text"),
    "CREATE STATISTICS s (dependencies) ON id, note FROM orders": "SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = 'orders'::regclass",
    "CREATE POLICY p ON orders USING (true)": "SELECT count(*) FROM pg_policy WHERE polrelid = 'orders'::regclass",
    "ALTER TABLE orders ENABLE ROW LEVEL SECURITY": OF_CLASS.format("relrowsecurity"),
    "CREATE TRIGGER t BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass",
    "CREATE RULE r AS ON UPDATE TO orders DO ALSO NOTHING": OF_CLASS.format("relhasrules"),
    "CREATE INDEX i ON orders (note); ALTER TABLE orders CLUSTER ON i": "SELECT indisclustered FROM pg_index WHERE indrelid = 'orders'::regclass",
    "ALTER TABLE orders ADD CONSTRAINT c CHECK (id > -1)": "SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass",
    "ALTER TABLE orders ADD made int GENERATED ALWAYS AS (1) STORED": "SELECT count(made) FROM orders",
    "ALTER TABLE orders ADD number bigint GENERATED ALWAYS AS IDENTITY": "SELECT count(number), pg_get_serial_sequence('orders', 'number') FROM orders",
    "ALTER TABLE orders ADD serial serial": "SELECT count(serial), pg_get_serial_sequence('orders', 'serial') FROM orders",
    "CREATE VIEW v AS SELECT * FROM orders": "SELECT count(*) FROM v",
    "CREATE MATERIALIZED VIEW v AS SELECT * FROM orders": "SELECT count(*) FROM v",
    "CREATE FUNCTION f(orders) RETURNS bigint LANGUAGE sql AS 'SELECT $1.id'": "SELECT count(f(orders)) FROM orders",
    "CREATE TABLE child () INHERITS (orders)": "SELECT count(*) FROM pg_inherits WHERE inhparent = 'orders'::regclass",
    "CREATE TABLE parent (id bigint, note text); ALTER TABLE orders INHERIT parent": "SELECT count(*) FROM parent",
    "CREATE TABLE other (o orders)": "SELECT count(*) FROM pg_attribute WHERE attrelid = 'other'::regclass AND atttypid = 'orders'::regtype",
}  # fmt: skip


NAMES = ["id", "note"]
STAGE = TABLE.beside("_headrace_stage_0")


def exchange(session: Session) -> None:
    """Replace the rows of the table as a publication does."""
    session.begin()
    session.create_stage(STAGE, TABLE, COLUMNS)
    session.execute("INSERT INTO _headrace_stage_0 (id, note) VALUES (3, 'new'), (4, NULL)")
    session.swap(STAGE, TABLE, NAMES)
    session.commit()


@pytest.mark.clause("IDataStore", 31)
async def test_columns_of_a_replaced_table_keep_their_types_in_every_store(store: IDataStore) -> None:
    there = pa.table({"id": pa.array([1], pa.int32()), "note": ["old"], "more": pa.array([7], pa.int16())})
    await store.write(TABLE, [there])

    await replaced(store, 1, {3: "new"})

    described = await store.describe(TABLE)
    assert described is not None
    kinds = {column.name: column.type for column in described.columns}
    assert (kinds["id"], kinds["note"], kinds["more"]) == ("int32", "string", "int16")
    assert await held(store) == {3: "new"}


@pytest.mark.clause("IDataStore", 31)
def test_replaced_table_keeps_what_it_had(postgres_database: str, somebody: Somebody) -> None:
    session = PostgresSession(address_of(postgres_database), "headrace")
    for script, question in HAD.items():
        somebody.does("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP PUBLICATION IF EXISTS p")
        somebody.does("CREATE TABLE orders (id bigint, note text)")
        somebody.does(script)
        somebody.does("INSERT INTO orders (id, note) VALUES (1, 'old'), (2, 'old')")
        before = somebody.does(question)
        exchange(session)

        assert somebody.does("SELECT id, note FROM orders ORDER BY id") == [(3, "new"), (4, None)], script
        assert somebody.does(question) == before, script
    session.close()


@pytest.mark.clause("IDataStore", 31)
@pytest.mark.invariant("D9")
async def test_everything_works_where_every_table_is_published(postgres: PostgresDataStore, somebody: Somebody) -> None:
    somebody.does("CREATE TABLE orders (id bigint, note text); COMMENT ON TABLE orders IS 'keep me'")
    somebody.does("CREATE PUBLICATION p FOR ALL TABLES")
    for fence in (1, 2):
        await replaced(postgres, fence, {3: "new"}, refused=1)

    assert await held(postgres) == {3: "new"}
    assert somebody.does("SELECT obj_description('orders'::regclass)") == [("keep me",)]


@pytest.mark.clause("IDataStore", 31)
async def test_table_whose_deletions_cannot_be_published_is_refused_by_name(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does("CREATE TABLE orders (id bigint, note text); CREATE PUBLICATION p FOR TABLE orders (id)")
    with pytest.raises(SchemaMismatchError) as refused:
        await replaced(postgres, 1, {3: "new"})
    assert refused.value.code == "destination.published"


@pytest.mark.clause("IDataStore", 31)
async def test_table_that_has_nothing_else_is_exchanged_for_another(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does("CREATE TABLE orders (id bigint, note text)")
    before = somebody.does("SELECT 'orders'::regclass::oid::bigint")

    await replaced(postgres, 1, {3: "new"})

    assert somebody.does("SELECT 'orders'::regclass::oid::bigint") != before


@pytest.mark.clause("IDataStore", 31)
@pytest.mark.parametrize("reaction", ["NO ACTION", "CASCADE", "SET NULL"])
async def test_rows_of_others_that_refer_to_a_replaced_table_stay_unless_theirs_is_gone(
    reaction: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does("CREATE TABLE orders (id bigint PRIMARY KEY, note text, kept text DEFAULT 'mine')")
    somebody.does(f"CREATE TABLE lines (number int, id bigint REFERENCES orders ON DELETE {reaction})")
    somebody.does("INSERT INTO orders VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO lines VALUES (1, 1), (2, 2)")

    await replaced(postgres, 1, {1: "new", 2: None, 5: "e"})
    assert await held(postgres) == {1: "new", 2: None, 5: "e"}
    assert somebody.does("SELECT * FROM lines ORDER BY number") == [(1, 1), (2, 2)]

    with pytest.raises(SchemaMismatchError) as repeated:
        await replaced(postgres, 3, {1: "twice"}, {1: "twice"})
    assert repeated.value.code == "destination.constraint"
    assert await held(postgres) == {1: "new", 2: None, 5: "e"}
    if reaction == "NO ACTION":
        with pytest.raises(SchemaMismatchError) as refused:
            await replaced(postgres, 4, {1: "newer"})
        assert refused.value.code == "destination.constraint"
        assert await held(postgres) == {1: "new", 2: None, 5: "e"}
    else:
        await replaced(postgres, 4, {1: "newer"})
        left = [(1, 1)] if reaction == "CASCADE" else [(1, 1), (2, None)]
        assert somebody.does("SELECT * FROM lines ORDER BY number") == left


# Types of which two spellings are one value, and what is there, what comes, and what it is to the table afterwards.
SPELLED = {
    "citext": ("A", "a"),
    "numeric": ("1.0", "1.00"),
    "interval": ("1 day", "24:00:00"),
    "double precision": ("-0", "0"),
}


def spelled_anew(session: Session, somebody: Somebody, kind: str, reaction: str) -> None:
    """Replace a table, to which others refer by a key of a type, with rows that write the key in another way."""
    there, comes = SPELLED[kind]
    somebody.does("DROP TABLE IF EXISTS lines, orders, _headrace_stage_0")
    somebody.does(f"CREATE TABLE orders (id {kind} PRIMARY KEY, note text)")
    somebody.does(f"CREATE TABLE lines (number int, id {kind} REFERENCES orders ON UPDATE {reaction})")
    somebody.does(f"INSERT INTO orders VALUES ('{there}', 'old'); INSERT INTO lines VALUES (1, '{there}')")
    with session.transaction():
        session.create_stage(STAGE, TABLE, [replace(COLUMNS[0], type="string"), COLUMNS[1]])
        session.execute(f"INSERT INTO _headrace_stage_0 (id, note) VALUES ('{comes}', 'new')")
        session.swap(STAGE, TABLE, NAMES)


@pytest.mark.clause("IDataStore", 31)
@pytest.mark.parametrize("reaction", ["NO ACTION", "CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT"])
def test_replaced_table_has_its_keys_as_the_source_writes_them(
    reaction: str, postgres_database: str, somebody: Somebody
) -> None:
    somebody.does("CREATE EXTENSION citext")
    session = PostgresSession(address_of(postgres_database), "headrace")
    for kind, (there, comes) in SPELLED.items():
        if reaction in ("NO ACTION", "CASCADE"):
            spelled_anew(session, somebody, kind, reaction)
            assert somebody.does("SELECT id::text, note FROM orders") == [(comes, "new")], kind
            kept = comes if reaction == "CASCADE" else there
        else:
            with pytest.raises(SchemaMismatchError, match="ON UPDATE CASCADE or NO ACTION") as refused:
                spelled_anew(session, somebody, kind, reaction)
            assert refused.value.code == "destination.referred", kind
            assert somebody.does("SELECT id::text, note FROM orders") == [(there, "old")], kind
            kept = there
        assert somebody.does("SELECT number, id::text FROM lines") == [(1, kept)], kind
    session.close()


@pytest.mark.clause("IDataStore", 31)
async def test_rows_that_a_policy_hides_are_not_left_beside_the_new_ones(
    postgres: PostgresDataStore, somebody: Somebody, postgres_database: str
) -> None:
    await replaced(postgres, 1, {1: "a", 2: "b"})
    role = f"plain_{postgres_database[-12:]}"
    somebody.does(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO "
        f"{role};CREATE POLICY p ON orders USING (id > 1); ALTER TABLE orders ENABLE ROW LEVEL SECURITY; DELETE FROM "
        "_headrace_owner"
    )
    address = address_of(postgres_database)
    store = PostgresDataStore(PostgresAddress(address.host, address.port, address.database, role))
    try:
        await store.open()
        with pytest.raises(InvalidInputError) as refused:
            await replaced(store, 2, {3: "c"})
        assert refused.value.code == "store.permission"
        assert await held(postgres) == {1: "a", 2: "b"}
    finally:
        await store.close()
        somebody.does(f"DROP OWNED BY {role}; DROP ROLE {role}")


ON_DUCKDB = {
    "COMMENT ON TABLE orders IS 'keep me'": "SELECT comment FROM duckdb_tables() WHERE table_name = 'orders'",
    "COMMENT ON COLUMN orders.note IS 'keep me'": "SELECT comment FROM duckdb_columns() WHERE table_name = 'orders'",
    "ALTER TABLE orders ALTER note SET DEFAULT 'x'": "SELECT column_default FROM duckdb_columns() WHERE table_name = 'orders'",
    "ALTER TABLE orders ALTER id SET NOT NULL": "SELECT is_nullable FROM duckdb_columns() WHERE table_name = 'orders'",
    "CREATE INDEX i ON orders (note)": "SELECT count(*) FROM duckdb_indexes()",
    "CREATE UNIQUE INDEX i ON orders (id)": "SELECT count(*) FROM duckdb_indexes()",
    "CREATE VIEW v AS SELECT * FROM orders": "SELECT count(*) FROM v",
    "ALTER TABLE orders ADD COLUMN made int DEFAULT 7": "SELECT sum(made) FROM orders",
}  # fmt: skip


@pytest.mark.clause("IDataStore", 31)
def test_replaced_table_of_duckdb_keeps_what_it_had() -> None:
    for script, question in ON_DUCKDB.items():
        with duckdb.connect() as connection:
            for statement in (
                "CREATE TABLE orders (id bigint, note text)",
                script,
                "INSERT INTO orders (id) VALUES (1), (2)",
            ):
                connection.execute(statement)
            before = connection.execute(question).fetchall()
            exchange(DuckDBSession(connection, threading.Lock(), ""))

            assert connection.execute("SELECT id, note FROM orders ORDER BY id").fetchall() == [(3, "new"), (4, None)]
            assert connection.execute(question).fetchall() == before, script


@pytest.mark.clause("IDataStore", 31)
async def test_full_refresh_of_a_merge_deletes_no_row_of_another_table(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does("CREATE TABLE orders (id bigint PRIMARY KEY, note text)")
    somebody.does("CREATE TABLE lines (number int, id bigint REFERENCES orders ON DELETE CASCADE)")
    somebody.does("INSERT INTO orders VALUES (1, 'a'), (2, 'b'); INSERT INTO lines VALUES (1, 1), (2, 2)")
    planned = read_set(shadow=True)
    await load(postgres, 1, planned, merging(planned, replaces=True), noted({1: "new", 3: "c"}))

    assert await held(postgres) == {1: "new", 3: "c"}
    assert somebody.does("SELECT * FROM lines") == [(1, 1)]


def drop_for_another(session: Session) -> str | None:
    """Drop the table as a publication does that puts one of other types in its place; the code if it is refused."""
    try:
        with session.transaction():
            drop_rebuilt(session, replace(merging(read_set()), rebuilds=True, key=()))
    except SchemaMismatchError as error:
        return error.code
    return None


@pytest.mark.clause("IDataStore", 31)
def test_table_on_which_something_hangs_since_the_plan_makes_way_for_none_of_other_types(
    postgres_database: str, somebody: Somebody
) -> None:
    session = PostgresSession(address_of(postgres_database), "headrace")
    scripts = ("COMMENT ON TABLE orders", "CREATE TRIGGER", "GRANT SELECT ON", "CREATE INDEX", "CREATE POLICY")
    for script in ("", *(found for found in HAD if found.startswith(scripts))):
        somebody.does("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id bigint, note text)")
        if script:
            somebody.does(script)
        assert drop_for_another(session) == ("schema.types_kept" if script else None), script
        assert somebody.does("SELECT to_regclass('orders') IS NOT NULL") == [(bool(script),)]
    session.close()


@pytest.mark.clause("IDataStore", 31)
def test_table_of_duckdb_on_which_something_hangs_makes_way_for_none_of_other_types() -> None:
    for script in ("SELECT 1", *(found for found in ON_DUCKDB if "VIEW" not in found)):
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE orders (id bigint, note text)")
            connection.execute(script)
            found = drop_for_another(DuckDBSession(connection, threading.Lock(), ""))
        assert found == (None if script == "SELECT 1" else "schema.types_kept"), script
