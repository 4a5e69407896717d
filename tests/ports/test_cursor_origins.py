"""The sequence that bounds a read is the one of the cursor's own column, whatever that is called and read through."""

import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from infrastructure.queries.postgres_origins import Origin, Table, TableColumn, origin_of
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.cursor_reading import Reading
from tests.somebody import Somebody

TABLES = """
CREATE TABLE customers (id bigserial PRIMARY KEY, name text);
INSERT INTO customers (name) SELECT 'x' FROM generate_series(1, 5000);
CREATE TABLE orders (id bigserial PRIMARY KEY, customer bigint DEFAULT 1, at timestamptz DEFAULT now());
INSERT INTO orders (customer) SELECT 1 FROM generate_series(1, 10);
CREATE TABLE events (id bigint PRIMARY KEY, customer bigint DEFAULT 1);
INSERT INTO events SELECT generate_series(1, 10);
CREATE VIEW renamed AS SELECT id AS number, customer, id FROM orders;
"""
MORE = "INSERT INTO orders (customer) SELECT 1 FROM generate_series(1, 10)"
JOINED = "JOIN customers c ON c.id = o.customer"


def reading_of(store: PostgresDataStore, query: str, column: str = "number", *, is_strict: bool = True) -> Reading:
    """The runs of a pipeline over a query, or over a table where it is a name."""
    cursor = CursorSpec(column, is_strict=is_strict)
    reading = Reading(store, "orders", cursor)
    if " " in query:
        reading.source = SourceSpec(query=query, cursor=cursor, key=("id",))
        return reading
    return Reading(store, query, cursor)


# Each shows the numbers of `orders`, and a sequence of another name that is far ahead where one is joined.
OF_ORDERS = {
    "an alias": "SELECT id AS number, id FROM orders",
    "a cast": "SELECT id::int::bigint AS number, id FROM orders",
    "a join": f"SELECT o.id AS number, o.id, c.name FROM orders o {JOINED}",
    "a join of the same name": f"SELECT o.id, o.id AS number, c.id AS other FROM orders o {JOINED}",
    "a join by names": "SELECT id AS number, id FROM orders JOIN (SELECT id, 1 AS one FROM customers) AS c USING (id)",
    "a common table": "WITH found (number) AS (SELECT id, 1 FROM orders) SELECT number, number AS id FROM found",
    "names of the FROM": "SELECT o.number, o.number AS id FROM orders AS o (number)",
    "a lateral item": "SELECT l.number, o.id FROM orders o, LATERAL (SELECT o.id AS number) AS l",
    "a view": "renamed",
    "a view, joined": "SELECT r.number, r.id FROM renamed r JOIN customers c ON c.id = r.customer",
    "a union with what has no sequence": "SELECT id AS number, id FROM orders UNION ALL SELECT 0, 0",
}


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("shape", OF_ORDERS)
async def test_a_row_above_its_sequence_waits_under_any_name(
    shape: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(TABLES)
    reading = reading_of(postgres, OF_ORDERS[shape])
    assert {*range(1, 11)} <= {*await reading.goes_on()}
    complete = reading.end.complete_as_of

    somebody.does("INSERT INTO orders (id) VALUES (4000)")
    assert await reading.goes_on() == []
    assert "up to 4000, above 10, the last that the sequence orders_id_seq" in reading.end.held_back[0]
    somebody.does(MORE)

    assert await reading.goes_on() == list(range(11, 21))
    assert reading.end.complete_as_of == complete


@pytest.mark.clause("IDataStore", 30)
async def test_a_read_is_no_more_complete_while_rows_wait_above_a_sequence(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(TABLES)
    reading = reading_of(postgres, "orders", "id")
    await reading.goes_on()
    complete = reading.end.complete_as_of
    somebody.does("INSERT INTO orders (id) VALUES (4000)")

    await reading.goes_on()
    assert reading.end.complete_as_of == complete

    somebody.does("SELECT setval('orders_id_seq', 4000)")
    assert await reading.goes_on() == [4000]
    assert (reading.end.complete_as_of or "") > (complete or "")


@pytest.mark.clause("IDataStore", 30)
async def test_the_cache_of_a_sequence_is_refused_under_any_name(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"{TABLES};ALTER SEQUENCE orders_id_seq CACHE 50")
    for query in ("renamed", OF_ORDERS["an alias"]):
        with pytest.raises(InvalidInputError, match="Each session keeps 50 numbers of the sequence orders_id_seq"):
            await reading_of(postgres, query).goes_on()


@pytest.mark.clause("IDataStore", 30)
async def test_the_sequence_of_another_table_holds_nothing_back(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(TABLES)
    query = "SELECT e.id, c.name FROM events e JOIN customers c ON c.id = e.customer"
    reading = reading_of(postgres, query, "id")
    assert len(await reading.goes_on()) == 10

    somebody.does("INSERT INTO events SELECT 10000 + 100 * i FROM generate_series(1, 60) AS i")
    assert len(await reading.goes_on()) == 60
    assert reading.end.sentences == ()
    somebody.does("INSERT INTO events SELECT 1700000000000000000 + i * 4194304 FROM generate_series(1, 300) AS i")
    assert len(await reading.goes_on()) == 300
    assert reading.end.sentences == ()


TWO = """
CREATE TABLE eu (id bigserial PRIMARY KEY, note text);
INSERT INTO eu (note) SELECT 'x' FROM generate_series(1, 1000);
CREATE TABLE us (id bigserial PRIMARY KEY, note text);
CREATE VIEW both_of AS SELECT id, 'eu' AS region FROM eu UNION ALL SELECT id, 'us' FROM us;
"""
PARTS = """
CREATE TABLE both_of (id bigint, region text) PARTITION BY LIST (region);
CREATE TABLE eu PARTITION OF both_of (id DEFAULT 0) FOR VALUES IN ('eu');
CREATE TABLE us PARTITION OF both_of (id DEFAULT 0) FOR VALUES IN ('us');
CREATE SEQUENCE eu_id_seq; ALTER TABLE eu ALTER id SET DEFAULT nextval('eu_id_seq'), ALTER region SET DEFAULT 'eu';
CREATE SEQUENCE us_id_seq; ALTER TABLE us ALTER id SET DEFAULT nextval('us_id_seq'), ALTER region SET DEFAULT 'us';
INSERT INTO eu (region) SELECT 'eu' FROM generate_series(1, 1000);
"""
TEN = {"view": "INSERT INTO us (note) SELECT 'x'", "parts": "INSERT INTO us (region) SELECT 'us'"}


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("kind", TEN)
async def test_of_several_sequences_the_one_that_is_furthest_behind_bounds_the_read(
    kind: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    ten = f"{TEN[kind]} FROM generate_series(1, 10)"
    somebody.does(f"{TWO if kind == 'view' else PARTS};{ten}")
    reading = reading_of(postgres, "both_of", "id")

    assert sorted(await reading.goes_on()) == sorted([*range(1, 11)] * 2)
    assert "up to 1000, above 10, the last that the sequence us_id_seq" in reading.end.held_back[0]
    somebody.does(ten)
    assert sorted(await reading.goes_on()) == sorted([*range(11, 21)] * 2)

    somebody.does("SELECT setval('us_id_seq', 2000)")
    assert await reading.goes_on() == list(range(21, 1001))
    assert reading.end.sentences == ()


@pytest.mark.clause("IDataStore", 30)
async def test_a_sequence_that_has_not_begun_beside_others_is_told(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(TWO)
    reading = reading_of(postgres, "both_of", "id", is_strict=False)

    assert len(await reading.goes_on()) == 1000
    assert "the sequence us_id_seq has given nothing yet" in reading.end.unknown[0]
    with pytest.raises(InvalidInputError, match="us_id_seq has given nothing yet"):
        await reading_of(postgres, "both_of", "id").goes_on()


@pytest.mark.clause("IDataStore", 30)
async def test_where_others_number_the_rows_of_several_tables_they_are_read_and_it_is_told(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"{TWO};{TEN['view']} FROM generate_series(1, 10)")
    somebody.does("INSERT INTO us SELECT 1001 + i FROM generate_series(1, 1000) AS i")
    reading = reading_of(postgres, "both_of", "id", is_strict=False)

    assert len(await reading.goes_on()) == 2010
    assert ["us_id_seq has given 10 at most" in told for told in reading.end.unknown] == [True, False]


NOT_FOLLOWED = {
    "SELECT id * 10 AS number, id FROM orders": "numbered by the sequence orders_id_seq: later",
    "SELECT max(id) AS number, customer AS id FROM orders GROUP BY 2": "the sequence orders_id_seq: later",
    "SELECT o.id + (SELECT 0) AS number, o.id FROM orders o": "the sequence orders_id_seq: later",
    "SELECT n AS number, o.id FROM orders o, generate_series(1, 1) AS n": "the sequence orders_id_seq: later",
    "SELECT id AS number, id FROM orders UNION ALL SELECT id * 2, id FROM customers": "customers_id_seq: later",
    "made": "the sequence orders_id_seq: later",
    "by_function": "The default of number is by nid, which",
    "by_text": "The default of number is by nextval, which",
    "SELECT number::bigint AS number, id FROM by_domain": "The default of number is by counted, which",
}
NOT_SEEN = """
CREATE VIEW made AS SELECT -id AS number, id FROM orders;
CREATE SEQUENCE numbers; SELECT nextval('numbers');
CREATE FUNCTION nid() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('numbers') $$;
CREATE TABLE by_function (id bigint DEFAULT 1, number bigint DEFAULT nid());
CREATE TABLE by_text (id bigint DEFAULT 1, number bigint DEFAULT nextval('numbers'::text));
CREATE DOMAIN counted AS bigint DEFAULT nextval('numbers');
CREATE TABLE by_domain (id bigint DEFAULT 1, number counted);
INSERT INTO by_function DEFAULT VALUES; INSERT INTO by_text DEFAULT VALUES; INSERT INTO by_domain DEFAULT VALUES;
"""


@pytest.mark.clause("IDataStore", 30)
async def test_where_no_sequence_can_be_followed_it_is_told_and_a_strict_cursor_refuses(
    postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"{TABLES};{NOT_SEEN}")
    for query, words in NOT_FOLLOWED.items():
        reading = reading_of(postgres, query, is_strict=False)
        await reading.goes_on()
        assert [words in told for told in reading.end.sentences] == [True], query
        with pytest.raises(InvalidInputError) as refused:
            await reading_of(postgres, query).goes_on()
        assert refused.value.code == "cursor.unknown"


NUMBERED_BY_NONE = [
    "SELECT (extract(epoch FROM at) * 1000000)::bigint AS number, id FROM orders",
    "SELECT customer AS number, id FROM orders",
    "SELECT id + 0 AS number, id FROM events",
    "generated",
]


@pytest.mark.clause("IDataStore", 30)
async def test_what_no_sequence_numbers_is_read_without_a_word(postgres: PostgresDataStore, somebody: Somebody) -> None:
    made = "id bigserial, customer bigint DEFAULT 7, number bigint GENERATED ALWAYS AS (customer * 2) STORED"
    somebody.does(f"{TABLES};CREATE TABLE generated ({made}); INSERT INTO generated DEFAULT VALUES")
    for query in NUMBERED_BY_NONE:
        reading = reading_of(postgres, query)
        assert await reading.goes_on(), query
        assert reading.end.sentences == (), query


async def test_a_time_needs_no_sequence_to_be_followed(postgres: PostgresDataStore, somebody: Somebody) -> None:
    somebody.does(f"{TABLES};{NOT_SEEN}")
    later = "SELECT at + interval '1 microsecond' * id - interval '1 hour' AS number, id FROM orders"
    reading = reading_of(postgres, later)

    assert len(await reading.goes_on()) == 10
    assert reading.end.sentences == ()


A, B, C = frozenset({(1, "id")}), frozenset({(2, "id")}), frozenset({(1, "code")})
UNSEEN = Origin(computed=None)
FOLLOWED = {
    "SELECT id FROM a": Origin(A),
    "SELECT * FROM a": Origin(A),
    "SELECT b.*, a.code FROM a JOIN b ON b.ref = a.id": Origin(B),
    "SELECT code AS id, id AS code FROM a": Origin(C),
    "SELECT public.a.id FROM public.a, b": Origin(A),
    "SELECT id FROM a LEFT JOIN b USING (id)": Origin(A),
    "SELECT id FROM a RIGHT JOIN b USING (id)": Origin(B),
    "SELECT id FROM a FULL JOIN b USING (id)": Origin(A | B),
    "SELECT * FROM b NATURAL RIGHT JOIN a": Origin(A),
    "SELECT k.id FROM a JOIN b USING (id) AS k": Origin(A),
    "SELECT j.id FROM (a CROSS JOIN b) AS j (code, id, more, last)": Origin(C),
    "SELECT id FROM a UNION SELECT id FROM b": Origin(A | B),
    "SELECT id FROM a INTERSECT SELECT id FROM b": Origin(A | B),
    "SELECT id FROM a EXCEPT SELECT id FROM b": Origin(A),
    "SELECT id FROM a UNION ALL (SELECT ref FROM b UNION ALL SELECT 7)": Origin(A | {(2, "ref")}),
    "VALUES (1)": UNSEEN,
    "SELECT column1 AS id FROM (VALUES (1), (2)) AS v": Origin(),
    "WITH a AS (SELECT id FROM b) SELECT id FROM a": Origin(B),
    "WITH a AS (SELECT id FROM b) SELECT id FROM public.a": Origin(A),
    "WITH RECURSIVE r AS (SELECT id FROM a UNION ALL SELECT b.id FROM b JOIN r ON r.id = b.ref) SELECT id FROM r": Origin(
        A | B
    ),
    "WITH RECURSIVE r AS (SELECT id FROM a UNION ALL SELECT id FROM r) SELECT id FROM r": Origin(A, None),
    "SELECT v.id FROM v": Origin(B),
    "SELECT a.id FROM a TABLESAMPLE system (10)": Origin(A),
    "SELECT id FROM elsewhere.a": UNSEEN,
    "SELECT a.id FROM (SELECT 1) AS a": UNSEEN,
    "SELECT id FROM a, f() AS g": Origin(A),
    "SELECT g.id FROM a, f() AS g": UNSEEN,
    "SELECT (a).id FROM a": UNSEEN,
    "SELECT coalesce(a.id, b.ref) AS id FROM a, b": Origin(computed=A | {(2, "ref")}),
    "SELECT count(*) AS id FROM a": Origin(),
    "SELECT row_number() OVER (ORDER BY id) AS id FROM a": Origin(computed=A),
    "SELECT id::text::bigint FROM a": Origin(computed=A),
    "SELECT id::other.int8 FROM a": Origin(computed=A),
    "SELECT id FROM broken": UNSEEN,
    "SELECT id FROM deep": UNSEEN,
}


@pytest.mark.parametrize("query", FOLLOWED)
def test_a_column_is_followed_to_those_of_tables(query: str) -> None:
    tables = (
        Table(1, "public", "a", True, (TableColumn("id"), TableColumn("code"))),
        Table(2, "public", "b", True, (TableColumn("ref"), TableColumn("id"))),
        Table(3, "public", "v", True, (TableColumn("code"), TableColumn("id")), "SELECT * FROM b;"),
        Table(4, "public", "broken", True, (TableColumn("id"),), "SELECT FROM WHERE"),
        Table(5, "public", "deep", True, (TableColumn("id"),), f"SELECT {'(' * 200}1{')' * 200}"),
    )

    assert origin_of(f"({query}) AS source", "id", tables) == FOLLOWED[query]
