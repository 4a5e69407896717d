"""What a table of somebody's would cut or round without a word is refused, and what it keeps lands as it was sent."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from domain.errors import PlatformError
from domain.pipelines.spec import Mode
from domain.ports.data_store import Target
from domain.stores.table import Column, TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.losses import refuse_losses
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.transforms.stages import converted
from tests.databases import postgres
from tests.ports.backends import address_of
from tests.ports.loading import read_set
from tests.ports.test_merge_equality import RUN, TABLE, land
from tests.somebody import Somebody

TYPES = """
create domain letters as varchar(3); create domain fixed as char(3); create domain named as name;
create domain amount as numeric(5,2); create domain amounts as numeric(5,2)[]; create domain upon as amount;
create domain second as timestamp(0); create domain tick as time(0); create domain span as interval(0);
create domain bits as bit(3); create domain flags as varbit(3); create domain light as real; create domain heavy as float8;
create domain day as date; create domain moment as timestamptz(0); create domain whole as numeric;
create domain mail as varchar(9) collate "POSIX" check (value like '%@%');
create type character_kind as enum ('a'); create domain mybit as bit(2);
create type pair as (a varchar(3), b numeric(5,2)); create domain pairs as pair[]; create domain many as amount[];
create domain hours as interval hour; create domain zoned as timetz; create domain place as point;
create domain span_of_time as tsrange; create type heavies as range (subtype = float8);
create type amounts_between as range (subtype = amount); create type letters_between as range (subtype = letters)"""
LOST = [
    *(
        ("letters", "abcd", "long"),
        ("letters[]", "{ab,abcd}", "long"),
        ("fixed", "abcd", "long"),
        ('"char"', "ab", "long"),
    ),
    *(("name", "x" * 64, "long"), ("named", "x" * 64, "long"), ("bits", "1010", "long"), ("flags", "1010", "long")),
    *(("amount", "1.239", "digits"), ("upon", "1.239", "digits"), ("amount[]", "{1.239}", "digits")),
    *(
        ("amounts", "{1,1.239}", "digits"),
        ("numeric(5,2)[]", "{{1.2},{1.239}}", "digits"),
        ("money", "1.239", "digits"),
    ),
    *(("second", "2024-01-01 00:00:00.7", "digits"), ("timestamp(0)[]", '{"2024-01-01 00:00:00.7"}', "digits")),
    *(("timestamp(0)", "2024-01-01 10:00:00+02", "digits"), ("moment", "2024-01-01 00:00:00.7+00", "digits")),
    *(("timestamp[]", '{"2024-01-01 10:00:00+02"}', "digits"), ("tick", "10:00:00.7", "digits")),
    *(
        ("time[]", '{"2024-01-01 10:00:00"}', "digits"),
        ("time(0)", "10:00:00+02", "digits"),
        ("span", "1.7 s", "digits"),
    ),
    *(("date[]", '{"2024-01-01 10:00:00"}', "digits"), ("day", "2024-01-01 10:00:00", "digits")),
    *(
        ("real[]", "{0.1234567890123}", "digits"),
        ("light", "16777217", "digits"),
        ("heavy", "9007199254740993", "digits"),
    ),
    *(("float8[]", "{0.12345678901234567890}", "digits"), ("pair", "(abc,1.239)", "digits")),
]
KEPT = [
    *(("letters", "abc"), ("letters[]", "{abc,NULL,ab}"), ("fixed", "a  "), ('"char"', "a"), ("name", "x" * 63)),
    *(
        ("named", "x" * 63),
        ("bits", "101"),
        ("flags", "10"),
        ("amount", "1.50"),
        ("upon", "NaN"),
        ("amount[]", "{1.20}"),
    ),
    *(("amounts", "{}"), ("numeric(5,2)[]", "[0:1]={1.00,NULL}"), ("money", "$1.23"), ("money", "-$1,234.50")),
    *(("second", "infinity"), ("timestamp(0)[]", '{"2024-01-01 00:00:00"}'), ("moment", "2024-01-01 00:00:00+00")),
    *(("tick", "24:00:00"), ("span", "1 mon -1 days"), ("date[]", "{2024-01-01,infinity}"), ("day", "5874897-12-31")),
    *(("real[]", "{0.1,1e+06,NaN,Infinity,-0}"), ("light", "1e-45"), ("heavy", "5e-324"), ("float8[]", "{0.1,1e+300}")),
    *(
        ("pair", '("a,b",1.20)'),
        ("mail", "Ä@b"),
        ("whole", "1.239"),
        ("int4range[]", '{"[1,5)"}'),
        ("oid", "4294967295"),
    ),
    *(
        ("character_kind", "a"),
        ("mybit", "10"),
        ("character_kind[]", "{a}"),
        ("bit(2)[]", "{10}"),
    ),
]

# Of types that others are made of in their turn: what is lost, and what is kept as it is written.
LOST_WITHIN = [
    ("hours", "02:03:04"),
    ("interval[]", "{1.1234567 s}"),
    ("interval day to minute", "1 day 02:03:04"),
    ("timestamp with time zone[]", "{2024-01-01 00:00:00.1234567+00}"),
    ("time with time zone", "10:00:00.1234567+01", "2024-01-01 10:00:00+01"),
    ("zoned", "1-Jan-2024 10:00:00+01"),
    ("tsrange", "[2024-01-01 10:00:00+02,)", "[2024-01-01 10:00:00.1234567,)"),
    ("span_of_time[]", '{"[,2024-01-01 10:00:00+02)"}'),
    ("tstzrange", "[2024-01-01 10:00:00.1234567+00,)"),
    ("daterange", "[2024-01-01 10:00,2024-01-03)"),
    ("datemultirange", "{[2024-01-01,2024-01-03 11:00:00)}"),
    ("tsmultirange", "{[2024-01-01 10:00:00+02,)}"),
    ("heavies", "[0.12345678901234567890,1)"),
    ("amounts_between", "[1.239,2)"),
    ("point", "(0.12345678901234567890,1)"),
    ("place", "(1,9007199254740993)"),
    ("point[]", '{"(0.12345678901234567890,1)"}'),
    ("box", "(9007199254740993,1),(0,0)"),
    ("line", "{1,2,0.12345678901234567890}"),
    ("money", "$1.239", "-$1,234.567"),
    ("money[]", "{$1.239}"),
    ("many", "{1.239}"),
    ("many[]", '{"{1.239}"}'),
    ("pairs", '{"(abc,1.239)"}'),
    ("pair", "(1.0,1.0001)", "(,1.005)"),
    ("oid", "-1"),
]
KEPT_WITHIN = [
    *(("hours", "1 day 02:00:00"), ("interval[]", "{00:00:01.123456}"), ("zoned", "10:00:00.123456-05:30")),
    *(("tsrange", '["2024-01-01 10:00:00.5",infinity)'), ("tsrange", "empty"), ("pairs", '{"(abc,1.20)"}')),
    *(("tstzrange", '["2024-01-01 10:00:00+00",)'), ("daterange", "[2024-01-01,2024-01-03)"), ("many", "{1.20,NULL}")),
    *(("datemultirange", "{[2024-01-01,2024-01-03)}"), ("numrange", "[0.12345678901234567890,1)")),
    *(("heavies", "[0.1,Infinity)"), ("amounts_between", "[1.20,2.00)"), ("letters_between", '["a b",abc)')),
    *(("point", "(0.1,-1e+300)"), ("box", "(2,2),(1,1)"), ("line", "{1,2,0.5}"), ("circle", "<(0,0),0.1>")),
    *(("path", "((0,0),(1,1e-07))"), ("point[]", '{"(NaN,-Infinity)"}'), ("place", "(0,0)")),
]
# What is the same value, written otherwise than Postgres writes it.
OTHERWISE: list[tuple[str, str, str]] = [
    *(("line", "[(0,0),(1,1)]", "{1,-1,0}"), ("box", "(1,1),(2.0,2)", "(2,2),(1,1)"), ("point", "1,2e0", "(1,2)")),
    *(("pair", "(abc,1.2)", "(abc,1.20)"), ("pair", "(1.0,1.000)", "(1.0,1.00)"), ("pair", "(,10)", "(,10.00)")),
    ("daterange", "[2024-01-01 00:00:00,2024-01-03 00:00]", "[2024-01-01,2024-01-04)"),
    ("tsrange", "[2024-01-01,2024-01-02 00:00:00+00]", '["2024-01-01 00:00:00","2024-01-02 00:00:00"]'),
    *(
        ("int4range", "[1,4]", "[1,5)"),
        ("heavies", "[1.0,2e0)", "[1,2)"),
        ("amounts_between", "[1.2,2)", "[1.20,2.00)"),
    ),
    *(("zoned", "10:00-05", "10:00:00-05"), ("interval[]", "{1.5 hours}", "{01:30:00}")),
    *(("money", "1234.5", "$1,234.50"), ("money", "(1,234.500)", "-$1,234.50"), ("many", "{1.2}", "{1.20}")),
    *(
        ("many[]", '{"{1.2,3}",NULL}', '{"{1.20,3.00}",NULL}'),
        ("pairs[]", '{"{\\"(abc,1.20)\\"}"}', '{"{\\"(abc,1.20)\\"}"}'),
    ),
]


def database_of(somebody: Somebody, kinds: list[str]) -> None:
    somebody.does(TYPES)
    somebody.does(";".join(f"create table t{number} (odd {kind})" for number, kind in enumerate(kinds)))


async def test_no_type_of_a_table_cuts_or_rounds_what_lands(postgres_database: str, somebody: Somebody) -> None:
    database_of(somebody, [kind for kind, *_ in LOST])
    store = PostgresDataStore(address_of(postgres_database))
    try:
        for number, (kind, value, what) in enumerate(LOST):
            with pytest.raises(PlatformError) as caught:
                await store.write(TableName(f"t{number}"), [pa.table({"odd": [None, value]})])
            wanted = "value.too_long" if what == "long" else "value.precision"
            # A table that is told to be named as its column is longer than a name may be.
            told = (caught.value.code, "column odd" in caught.value.message)
            assert told == (wanted, True) or (kind, caught.value.code) == ("name", "query.invalid"), (kind, told)
            assert value not in caught.value.message
    finally:
        await store.close()


async def test_what_a_table_keeps_lands_as_it_was_sent(postgres_database: str, somebody: Somebody) -> None:
    database_of(somebody, [kind for kind, _ in KEPT])
    store = PostgresDataStore(address_of(postgres_database))
    try:
        for number, (kind, value) in enumerate(KEPT):
            assert await store.write(TableName(f"t{number}"), [pa.table({"odd": [None, value]})]) == 2, kind
    finally:
        await store.close()
    held = "union all ".join(
        f"select {number}, odd::text from t{number} where odd is not null " for number in range(len(KEPT))
    )
    [(found,)] = postgres(
        postgres_database, f"select json_agg(array[n::text, v] order by n)::text from ({held}) as f(n, v)"
    )
    wanted = [value.rstrip() if kind == "fixed" else value for kind, value in KEPT]
    assert [value for _, value in json.loads(found)] == wanted


async def test_no_type_that_is_made_of_others_cuts_or_rounds_either(postgres_database: str, somebody: Somebody) -> None:
    somebody.does(TYPES)
    store = PostgresDataStore(address_of(postgres_database))
    try:
        async with store._session("test") as (session, thread):
            told = await thread.call(_told_within, session)
    finally:
        await store.close()
    assert told == []


def _told_within(session: PostgresSession) -> list[tuple[str, str, str]]:
    """What is told of each value, where that is not what it should be."""
    wrong = []
    session.execute("create temporary table staged (odd text)")
    kept = [(kind, value, value) for kind, value in KEPT_WITHIN] + OTHERWISE
    for kind, value, wanted in [(kind, value, "") for kind, *values in LOST_WITHIN for value in values] + kept:
        session.execute("truncate staged")
        session.execute("insert into staged values ($1), (null)", (value,))
        try:
            refuse_losses(session, "staged", {"odd": kind})
            found = session.execute(f"select odd::{kind}::text from staged where odd is not null")[0][0]
        except PlatformError as error:
            found = "" if error.code == "value.precision" else error.message
        if found != wanted:
            wrong.append((kind, value, found))
    return wrong


@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_keys_that_a_table_makes_one_by_cutting_blanks_are_one(
    shadow: bool, postgres_database: str, somebody: Somebody
) -> None:
    somebody.does("create table merged (k varchar(3), n bigint)")
    columns, stage = (Column("k", "string"), Column("n", "int64")), read_set(shadow=shadow).shadow
    target = Target(TABLE, Mode.MERGE, stage, columns, RUN, False, key=("k",))
    store = PostgresDataStore(address_of(postgres_database))
    try:
        rows = [pa.table({"k": keys, "n": [n, n + 1]}) for n, keys in ((1, ["abc", "abc  "]), (3, ["ab", "abc "]))]
        published = await land(store, 1, target, "r1", rows, 4)
    finally:
        await store.close()
    assert postgres(postgres_database, "select '[' || k || ']', n from merged order by n") == [
        ("[ab]", 3),
        ("[abc]", 4),
    ]
    assert published.counts.produced == 4


# Of a text, as a step asks for it and as the column of a table has it.
IN_TEXTS = [
    *(("list<int32>", "[1.5]", "[1, 2]"), ("list<decimal(5,2)>", "[1, 1.239]", "[1.20, NULL]")),
    *(("list<list<int64>>", "[[1], [2.5]]", "[[1], NULL, []]"), ("list<date>", "[2024-01-01 10:00]", "[2024-01-01]")),
    *(("struct<a:int32,b:string>", "{a: 1.5, b: x}", "{'a': 1, 'b': '1.5'}"), ("map<string,int8>", "{x=1.5}", "{x=1}")),
    *(("map<int64,string>", "{1.5=x}", "{1=1.5}"), ("struct<a:list<uint8>>", "{a: [1, 2.5]}", "{'a': [1, 2]}")),
    *(
        ("interval", "1.1234567 seconds", "1.1234560 seconds"),
        ("struct<a:timestamp>", "{a: 2024-01-01 10:00+02}", "{}"),
    ),
]


@pytest.mark.parametrize("exactly", [frozenset[str](), frozenset({"a"})], ids=["step", "column"])
def test_no_value_within_a_text_is_rounded_as_it_is_converted(exactly: frozenset[str]) -> None:
    with duckdb.connect() as connection:
        for kind, lost, kept in IN_TEXTS:
            connection.execute("create or replace table given as select unnest([$1, $2, NULL]) as a", [lost, kept])
            connection.execute("alter table given add column _headrace_ordinal bigint")
            made = converted("given", [("a", "string", kind)], earlier="", exactly=exactly)
            found = [row[1] is None for row in connection.execute(made).fetchall()]
            assert found == [True, False, True], kind


WHOLE = [("UHUGEINT", "1.5", "340282366920938463463374607431768211455"), ("BIGNUM", "1e-1", "-" + "9" * 50)]
WITHIN = [
    ("HUGEINT[]", "[1, 2.5]", "[1,2]"),
    ("STRUCT(a UHUGEINT, b VARCHAR)", "{'a': 1.5, 'b': x}", "{'a': 1, 'b': 'x y'}"),
]
CLOCKS = [
    ("TIME WITH TIME ZONE", "10:00:00.1234567+01", "10:00:00.123456+01"),
    ("TIME WITH TIME ZONE", "2024-01-01 10:00:00+01", "10:00:00-05:30"),
    ("BIT", None, "101"),
]


async def test_no_text_becomes_another_value_in_a_duckdb(tmp_path: Path) -> None:
    cases = WHOLE + WITHIN + CLOCKS
    with duckdb.connect(tmp_path / "data.duckdb") as connection:
        for number, (kind, *_) in enumerate(cases):
            connection.execute(f"create table t{number} (odd {kind})")
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "data.duckdb"))
    await store.open()
    try:
        for number, (kind, lost, kept) in enumerate(cases):
            if lost is not None:
                with pytest.raises(PlatformError) as caught:
                    await store.write(TableName(f"t{number}"), [pa.table({"odd": [None, lost]})])
                assert (caught.value.code, "column odd" in caught.value.message) == ("value.precision", True), kind
            assert await store.write(TableName(f"t{number}"), [pa.table({"odd": [None, kept]})]) == 2, kind
    finally:
        await store.close()
    with duckdb.connect(tmp_path / "data.duckdb") as connection:
        landed = [
            connection.execute(f"select odd::varchar from t{n} where odd is not null").fetchall() for n in range(2)
        ]
    assert landed == [[(WHOLE[0][2],)], [(WHOLE[1][2],)]]


def wide_and_deep() -> list[tuple[str, str, str]]:
    """Types of very many parts, with a text whose last value would be rounded and one that is kept."""
    wide = f"struct<{','.join(f'f{n}:int32' for n in range(2000))}>"
    texts = (", ".join(f"'f{n}': {n + (lost if n == 1999 else 0)}" for n in range(2000)) for lost in (0.5, 0))
    deep = [("list<" * 25 + "int8" + ">" * 25, "[" * 25 + value + "]" * 25) for value in ("1.5", "1")]
    return [(wide, *(f"{{{text}}}" for text in texts)), (deep[0][0], deep[0][1], deep[1][1])]


def test_texts_that_become_very_large_types_are_looked_at_quickly() -> None:
    """Lambdas within lambdas take DuckDB ever longer, and a document may ask for thousands of fields."""
    with duckdb.connect() as connection:
        for kind, lost, kept in wide_and_deep():
            connection.execute("create or replace table given as select unnest([$1, $2]) as a", [lost, kept])
            connection.execute("alter table given add column _headrace_ordinal bigint")
            made = converted("given", [("a", "string", kind)], earlier="")
            assert len(made) < 5 * len(kind) + 2000
            assert [row[1] is None for row in connection.execute(made).fetchall()] == [True, False]
