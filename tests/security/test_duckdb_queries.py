"""What a query on DuckDB may be, as DuckDB's own parser says: refused or as it is, beside what stays permitted."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import pytest_asyncio

from domain.errors import InvalidInputError, PlatformError, QueryRefusedError
from domain.pipelines.spec import SourceSpec
from infrastructure.queries.bounds import MAX_NESTING, MAX_QUERY_BYTES
from infrastructure.queries.duckdb_names import AGGREGATES, ALLOWED, TABLES, UNSTABLE, WINDOWS
from infrastructure.queries.duckdb_reading import read_query
from infrastructure.queries.duckdb_steps import read_step
from infrastructure.security.query_guard import judge_source
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.tabular.arrow import to_table

# Each with the code of its refusal, and a twin that does nothing but read.
REFUSED = [
    ("with x as (insert into t values (1) returning *) select * from x", "query.not_readonly", "with x as (from t) from x"),
    ("with x as (delete from t returning *) from x", "query.not_readonly", "with x as (select 1 as a) from x"),
    ("with x as (update t set a = 1 returning *) from x", "query.not_readonly", "with x as materialized (from t) from x"),
    ("summarize t", "query.not_readonly", "select min(a), max(a), count(*) from t"),
    ("describe t", "query.not_readonly", "select * from t limit 0"),
    ("show tables", "query.not_readonly", 'select "show" from t'),
    ("from (describe t)", "query.not_readonly", "from (from t)"),
    ("explain select 1", "query.not_readonly", "select 'explain' from t"),
    ("pivot t on a using sum(b)", "query.pivot", "from t pivot (sum(b) for a in (1, 2))"),
    ("from (pivot t on a using sum(b))", "query.pivot", "from (unpivot t on a, b)"),
    ("select 1; select 2", "query.multiple_statements", "select 1;"),
    ("commit; drop table t", "query.multiple_statements", "select 'commit; drop table t'"),
    ("select 1\0; drop table t", "query.unparsable", "select 1 -- \u2028"),
    ("select * from t) as source; drop table t; --", "query.unparsable", "select * from (from t) as source --"),
    ("select 1e[2]", "query.unparsable", "select [1][1]"),
    ("select {{:}}", "query.unparsable", "select {'a': {'b': 1}}"),
    ("select a /*", "query.unparsable", "select a /* b */ from t"),
    ("", "query.unparsable", "values (1)"),
    ("from '/etc/passwd'", "query.forbidden_relation", "from t"),
    ("from 'x.csv'", "query.forbidden_relation", 'from "x csv"'),
    ('from "http://host/x"', "query.forbidden_relation", 'from "x y"'),
    ("from _Headrace_checkpoint", "query.forbidden_relation", "from headrace_x.t"),
    ("from headrace.api_keys", "query.forbidden_relation", "from headraces"),
    ("from information_schema.tables", "query.forbidden_relation", "from informations.tables"),
    ("from pg_catalog.pg_class", "query.forbidden_relation", "from pg_class_of_mine"),
    ("from system.main.duckdb_tables", "query.forbidden_relation", "from mine.main.t"),
    ("from duckdb_secrets", "query.forbidden_relation", "from my_secrets"),
    ("with \"a.csv\" as (select 1) from t", "query.forbidden_relation", 'with "a csv" as (select 1) from t'),
    ("select getvariable('x')", "query.forbidden_function", "select 'getvariable'"),
    ("select getenv('HOME')", "query.forbidden_function", "select greatest(1, 2)"),
    ("select current_setting('threads')", "query.forbidden_function", "select current_date, now()"),
    ("select nextval('s')", "query.forbidden_function", "select row_number() over ()"),
    ("from query('select 1')", "query.forbidden_function", "from (select 1)"),
    ("from query_table('duckdb_secrets')", "query.forbidden_function", "from t as query_table"),
    ("from histogram(duckdb_secrets, name)", "query.forbidden_function", "select histogram(a) from t"),
    ("from read_csv('x')", "query.forbidden_function", "select 'x' as read_csv"),
    ("from read_text('x')", "query.forbidden_function", "select regexp_matches(a, 'read_text') from t"),
    ("from json_execute_serialized_sql('x')", "query.forbidden_function", "select json_extract(a, '$.b') from t"),
    ("select json_serialize_plan('select 1')", "query.forbidden_function", "select to_json(a) from t"),
    ("from duckdb_settings()", "query.forbidden_function", "from range(3)"),
    ("from pragma_version()", "query.forbidden_function", "from generate_series(1, 3)"),
    ("select a from t where write_log('x') is null", "query.forbidden_function", "select log(a) from t"),
    ("select x.getenv() from t", "query.forbidden_function", "select x.upper() from t"),
    ("select main.my_macro(a) from t", "query.forbidden_function", "select main.lower(a) from t"),
    ("select my_macro(a) from t", "query.forbidden_function", "select lower(a) from t"),
    ("select list_aggregate(l, 'sum') from t where (select sleep_ms(5)) is null", "query.forbidden_function",
     "select list_aggregate(l, 'sum') from t where (select 5) is null"),
    ("select * from t where exists (select stats(a) from t)", "query.forbidden_function",
     "select * from t where exists (select a from t)"),
    ("select sum(a) over (order by setseed(1)) from t", "query.forbidden_function", "select sum(a) over (order by b) from t"),
    ("select list_transform(l, lambda x: getvariable('x')) from t", "query.forbidden_function",
     "select list_transform(l, lambda x: x || 'y') from t"),
    ("select columns(lambda c: getenv(c) = '') from t", "query.forbidden_function", "select columns('a.*') from t"),
    ("from t at (version => 1)", "query.forbidden_construct", 'select a as "at" from t'),
    ("select default", "query.forbidden_construct", "select a as \"default\" from t"),
    ("select ?", "query.parameter_missing", "select '?'"),
    ("select $1", "query.parameter_missing", "select '$1'"),
]  # fmt: skip
MADE = [
    ("select range(300000000)", "select range(3)"),
    ("select list_transform(range(300000000), lambda x: x)", "select list_transform(range(30), lambda x: x + 1)"),
    ("select generate_series(1, 100000000)", "select generate_series(1, 10)"),
    ("select range(a) from t", "select range(1, 5, 2) from t"),
    ("select unnest(range(100000000))", "select unnest(range(100))"),
    ("from range(1000000000000)", "from range(10000000)"),
    ("from range(10000001)", "from generate_series(1, 10000000)"),
    ("from range()", "from range(3)"),
    ("select range(4001)", "select range(4000)"),
    (
        "select list_sum(list_transform(range(4000), lambda x: list_sum(list_transform(range(4000), lambda y: x + " "y))))",
        "select list_sum(list_transform(l, lambda x: list_sum(list_transform(range(40), lambda y: x + y)))) from t",
    ),
    (
        f"select to_json(list_transform(range(4000), lambda x: {{'{'n' * 9000}': x}}))",
        "select to_json(list_transform(range(40), lambda x: {'n': x}))",
    ),
    (
        f"select to_json(l::struct(\"{'n' * 9000}\" int)[]) from t",
        "select to_json(l::struct(n int)[]) from t",
    ),
    (
        f"select to_json(list_transform(range(4000), lambda x: r)) from (select 1 as \"{'n' * 9000}\") r",
        "select to_json(r) from (select 1 as n) r",
    ),
    (
        "select concat(" + ", ".join(["a"] * 2_000) + ") from t",
        "select concat(" + ", ".join(["a"] * 100) + ") from t",
    ),
    ("from range(t.a), t", "from t, range(3)"),
    (
        "from range(timestamp '2000-01-01', timestamp '2100-01-01', interval 1 microsecond)",
        "from range(date '2020-01-01', current_date, interval 1 day)",
    ),
    (
        "select range(cast('2020-01-01 23:59:59' as timestamp)::date::timestamp, now(), interval 1 microsecond)",
        "select range(timestamp '2020-01-01', timestamp '2020-02-01', interval '1 day')",
    ),
    ("select range(0, 1000000, 1000::boolean::int)", "select range(0, 1000000, 1000)"),
    ("select repeat('x', 1000000000)", "select repeat('x', 10)"),
    ("select repeat(repeat(repeat('x', 10000), 10000), 10000)", "select repeat(repeat('x', 10), 10)"),
    ("select repeat('x', a) from t", "select repeat(a, 2) from t"),
    ("select lpad(a, 1000000000, 'x') from t", "select lpad(a, 10, 'x') from t"),
    ("select rpad('x', b, 'x') from t", "select rpad('x', 5, 'x') from t"),
    ("select list_resize([1], 1000000000)", "select list_resize([1], 10)"),
    ("select array_resize([1], a) from t", "select array_resize([1], 3) from t"),
    ("select list_resize([repeat('x', 10000)], 100000, repeat('x', 10000))", "select list_resize(['x'], 10, 'y')"),
    ("select bar(1, 0, 1, 1000000000)", "select bar(1, 0, 1, 10)"),
    ("select format('{:>1000000000}', 'x')", "select format('{:>10}', 'x')"),
    ("select format('{:>{}}', 'x', 1000000000)", "select format('{} {}', 'x', 1)"),
    ("select format(a, 1) from t", "select format('{}', a) from t"),
    ("select printf('%1000000000d', 1)", "select printf('%05d', 1)"),
    ("select printf('%*d', 1000000000, 1)", "select printf('%d', 1000000000)"),
    ("select to_base(1, 2, 1000000000)", "select to_base(5, 2, 10)"),
    ("select null::int[100000]", "select null::int[3]"),
    ("select null::int[1000][1000]", "select null::int[3][3]"),
    ("select list_transform(range(100000), lambda x: range(100000))", "select list_transform(range(10), lambda x: range(10))"),
    (
        f"select replace('{'a' * 3000}', 'a', '{'b' * 3000}')",
        "select replace(a, 'a', 'bb') from t",
    ),
    (
        "with " + ", ".join(f"c{n} as (select x || x as x from c{n - 1})" for n in range(1, 40)) + " from c39",
        "with c1 as (select a || b as x from t), c2 as (select x || '!' as x from c1) from c2",
    ),
    (
        "select " + "replace(" * 4 + "a" + ", 'b', a)" * 4 + " from t",
        "select " + "replace(" * 9 + "a" + ", 'b', 'c')" * 9 + " from t",
    ),
    (
        "with recursive r as (select 'x' as s, 1 as n union all select s || s, n + 1 from r where n < 40) from r",
        "with recursive r as (select 'x' as s, 1 as n union all select s || '!', n + 1 from r where n < 40) from r",
    ),
    (
        "with recursive r as (select {'name': 'x'} as q, 1 as n union all "
        "select {'name': q.name || q.name}, n + 1 from r, t as q where n < 40) from r",
        "with recursive r as (select name as path, id from t where parent is null union all "
        "select r.path || '/' || u.name, u.id from u join r on u.parent = r.id) from r",
    ),
    # Common tables that double: the engine plans each of their names anew, in the process that owns the file.
    *(
        (
            "with " + ", ".join(f"c{n} as {how}({text.replace('@', f'c{n - 1}')})" for n in range(1, levels)).replace("c0", "t")
            + f" select * from c{levels - 1}",
            "with c1 as (select * from t), " + ", ".join(f"c{n} as (select a.x from c{n - 1} a, c1 b)" for n in range(2, 60))
            + " select * from c59",
        )
        for levels in (14, 60)
        for how in ("", "not materialized ", "materialized ")
        for text in ("select * from @ union all select * from @", "select a.x from @ a, @ b", "select x, (select max(x) from @) from @",
                     "with q as (select * from @) select * from q, q r")
    ),
    # None by itself, but all together: DuckDB has 2,048 of each at once.
    (
        "select sum(" + " + ".join(f"length(repeat('abcdefgh{n}' || range, 1800))" for n in range(60)) + ") from range(2048)",
        "select sum(" + " + ".join(f"length(repeat('abcdefgh{n}' || range, 20))" for n in range(60)) + ") from range(2048)",
    ),
    (
        "select " + ", ".join(f"max(repeat(range || 'abcdefgh{n}', 1800))" for n in range(60)) + " from range(2048)",
        "select " + ", ".join(f"to_json(struct_pack(a := a{n}, b := b, c := c, d := d, e := e))" for n in range(25)) + " from t",
    ),
    (
        "select " + ", ".join(f"length(repeat(c{n}, 250))" for n in range(20)) + " from t",
        "select " + ", ".join(f"upper(trim(coalesce(c{n}, 'none')))" for n in range(300)) + " from t",
    ),
    (
        "select list_reduce(range(40), lambda s, x: s || s, 'x')",
        "select list_reduce(l, lambda s, x: s + x) from t",
    ),
]  # fmt: skip


@pytest.mark.line("8", "9", "10", "12", "14")
@pytest.mark.parametrize(("query", "code", "twin"), REFUSED, ids=[query[:60] for query, *_ in REFUSED])
def test_refused_with_its_twin(query: str, code: str, twin: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        read_query(query)

    assert caught.value.code == code, caught.value.message
    read_query(twin)


@pytest.mark.line("11")
@pytest.mark.parametrize(("query", "twin"), MADE, ids=[query[:60] for query, _ in MADE])
def test_what_makes_much_from_nothing(query: str, twin: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        read_query(query)

    assert caught.value.code in ("query.too_large", "query.forbidden_construct"), caught.value.message
    read_query(twin)


@pytest.mark.line("11")
@pytest.mark.parametrize(
    ("text", "twin"),
    [
        ("select " + "(" * 16_000, "select " + "(" * 40 + "1" + ")" * 40),
        ("select " + "[" * 5_000 + "]" * 5_000, "select [[[]]]"),
        ("select 1" + "+1" * 15_000, "select a" + " || a" * 50 + " from t"),
        ("select " + "f(" * 400 + ")" * 400, "select " + "lower(" * 30 + "a" + ")" * 30 + " from t"),
        ("select " + "not " * 7_000 + "true", "select not not true"),
        ("select 1" + "::int" * 5_000, "select 1::int::bigint"),
        ("select a" + ".a()" * 5_000, "select a.lower() from t"),
        ("select * from t" + " join t using (a)" * 1_800, "select * from t" + " join t using (a)" * 50),
        ("'" * 40_000, "select 'it''s'"),
        ("select " + "list_transform(l, lambda x: " * 30 + "x" + ")" * 30, "select list_transform(l, lambda x: x)"),
        ("select '" + "x" * MAX_QUERY_BYTES + "'", "select '" + "x" * 20_000 + "'"),
    ],
    ids=lambda text: text[:30],
)
def test_text_that_a_parser_would_choke_on(text: str, twin: str) -> None:
    started = time.thread_time()
    with pytest.raises(InvalidInputError) as caught:
        read_query(text)
    assert caught.value.code in (
        "query.unparsable",
        "query.too_large",
        "query.forbidden_function",
    )
    assert time.thread_time() - started < 1

    read_query(twin)
    read_query("select * from t" + " union all select * from t" * 100)
    assert MAX_NESTING >= 100


@pytest.mark.line("10", "12")
def test_every_function_of_the_engine_is_known_or_refused() -> None:
    with duckdb.connect() as connection:
        functions = connection.execute(
            "SELECT lower(function_name), function_type, coalesce(max(stability), ''), bool_or(has_side_effects) "
            "FROM duckdb_functions() GROUP BY ALL"
        ).fetchall()
    assert len(functions) > 900
    kinds: dict[str, set[str]] = {}
    for name, kind, stability, _ in functions:
        kinds.setdefault(name, set()).add(kind)
        if kind in ("table", "table_macro", "pragma") and name not in TABLES:
            with pytest.raises(QueryRefusedError):
                read_query(f'from "{name}"(1, 2)')
        if name in ALLOWED:
            assert stability != "VOLATILE" or name in UNSTABLE, name
            assert stability != "CONSISTENT_WITHIN_QUERY" or name in UNSTABLE, name
        elif kind not in ("table", "table_macro", "pragma"):
            for text in (
                f'select "{name}"(a, b) from t',
                f'select a."{name}"() from t',
                f'select "{name}"(a) over () from t',
            ):
                with pytest.raises(QueryRefusedError) as caught:
                    read_query(text)
                assert caught.value.code == "query.forbidden_function", (name, caught.value.message)
    for name, found in kinds.items():
        if name in ALLOWED:
            assert ("aggregate" in found) <= (name in AGGREGATES), name
            assert ("window" in found) <= (name in WINDOWS | AGGREGATES), name
    absent = (
        "getenv",
        "getvariable",
        "current_setting",
        "query",
        "read_csv",
        "nextval",
        "setseed",
        "write_log",
        "error",
    )
    assert not ALLOWED & set(absent)


@pytest.mark.line("10")
def test_every_function_of_a_step_gives_the_same_again() -> None:
    with duckdb.connect() as connection:
        unstable = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT' OR function_type "
            "= 'aggregate'"
        ).fetchall()
    assert len(unstable) > 90
    for (name,) in unstable:
        for text in (f'select "{name}"() as x from batch', f'select a."{name}"() as x from batch'):
            with pytest.raises(InvalidInputError):
                read_step(text)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    path = tmp_path / "data.duckdb"
    with duckdb.connect(str(path)) as connection:
        for statement in SHELF:
            connection.execute(statement)
    store = DuckDBDataStore(DuckDBOptions(path=path, scratch=tmp_path / "scratch"))
    await store.open()
    yield store
    await store.close()


SHELF = (
    "CREATE TABLE orders AS SELECT i::BIGINT AS id, 'n' || (i % 7) AS name, (i * 1.25)::DECIMAL(10, 2) AS amount, "
    "DATE '2024-01-01' + i::INTEGER AS day, [i, i + 1, i * 2] AS l, {'a': i, 'b': 'x' || i} AS s, "
    "json_object('k', i, 'tags', ['a', 'b']) AS j, map {'x': i} AS m, i % 3 = 0 AS is_third FROM range(60) r(i)",
    "CREATE TABLE customers AS SELECT 'n' || i AS name, 'City ' || i AS city, i AS parent FROM range(5) r(i)",
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE TABLE felt AS SELECT 'good'::mood AS m",
    "CREATE VIEW shown AS SELECT name, sum(amount) AS total FROM orders GROUP BY name",
    "CREATE TABLE made (a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1))",
    "INSERT INTO made VALUES (1)",
)
ORDINARY = """
select * from orders
from orders
select id, name from orders where id > 10 and name like 'n%' order by id desc limit 5
select o.*, c.city from orders o join customers c using (name)
select o.id, c.city from orders o left join customers c on o.name = c.name where c.city is null or c.city <> 'City 1'
select name, count(*) as n, sum(amount) as total, avg(amount) from orders group by name having count(*) > 3
select name, is_third, count(*) from orders group by all
select name, is_third, sum(amount) from orders group by cube (name, is_third)
select * exclude (l, s) from orders
select * replace (upper(name) as name) from orders
select * rename (name as title) from orders
select columns('i.*') from orders
select min(columns(* exclude (l, s, j, m))) from orders
with a as (select * from orders where id > 5), b as (select name, max(id) as m from a group by name) select * from b join a using (name)
with recursive r as (select 1 as n union all select n + 1 from r where n < 20) select n from r
with recursive tree as (select name, parent, name as path from customers where parent = 0 union all select c.name, c.parent, tree.path || '/' || c.name from customers c join tree on c.parent = tree.parent + 1) select * from tree
select *, row_number() over (partition by name order by id) as rn from orders qualify rn = 1
select id, lag(amount, 1) over (order by id), sum(amount) over (order by id rows between 2 preceding and current row) as s from orders
select id, first_value(name ignore nulls) over (order by id) as f, translate(name, 'n', 'm') as t, nfc_normalize(name) as u from orders
select id, rank() over w as r, first_value(name) over w as f from orders window w as (partition by name order by amount desc)
select id, list_transform(l, lambda x: x * 2) as doubled, list_filter(l, lambda x: x % 2 = 0) as even, [x + 1 for x in l if x > 3] as c from orders
select list_reduce(l, lambda a, x: a + x) as total, list_sum(l), list_contains(l, 3), l[1], l[1:2], len(l) from orders
select s.a, s['b'], struct_extract(s, 'b'), m['x'], map_keys(m) from orders
select j ->> '$.k' as k, json_extract_string(j, '$.tags[0]') as t, j -> 'tags' as tags, json_array_length(j, '$.tags') from orders
select cast(id as varchar), id::decimal(12, 2), try_cast(name as integer), '2024-01-01'::date, amount::double from orders
select case when id > 5 then 'big' when id > 2 then 'mid' else 'small' end as size, coalesce(nullif(name, 'n1'), '?'), if(id > 1, 1, 2) from orders
select date_trunc('month', day) as month, extract(year from day) as y, date_diff('day', day, date '2025-01-01'), strftime(day, '%d.%m.%Y'), day + interval 1 month from orders
select regexp_replace(name, '[0-9]+', '#', 'g'), regexp_extract(name, '([0-9]+)', 1), regexp_matches(name, '^n'), string_split(name, 'n') from orders
select lower(name), trim(name), substring(name, 1, 1), left(name, 1), replace(name, 'n', 'm'), concat(name, '-', id), name || '!', lpad(name, 5, '.'), length(name) from orders
select round(amount, 1), abs(-amount), floor(amount), amount % 3, amount ** 2, greatest(id, 3), sqrt(id) from orders
select string_agg(name, ',' order by id), list(id order by id), arg_max(name, amount), median(amount), quantile_cont(amount, 0.9), count(distinct name), first(name order by id) from orders
select name, sum(amount) filter (where is_third) as thirds from orders group by name
select * from orders where name in (select name from customers) and exists (select 1 from customers c where c.name = orders.name)
select id from orders where amount > (select avg(amount) from orders)
select id, unnest(l) as item from orders
select o.id, u.x from orders o, unnest(o.l) u(x)
select id from orders union all select parent from customers union select 99
select id from orders intersect select parent from customers
select id from orders except select parent from customers
select distinct name from orders order by all
select distinct on (name) name, id from orders order by name, id
select * from (values (1, 'a'), (2, 'b')) v(id, t)
select d::date as day, count(o.id) from generate_series(date '2024-01-01', date '2024-03-01', interval 1 day) g(d) left join orders o on o.day = d::date group by 1
select * from orders pivot (sum(amount) for is_third in (true, false) group by name)
select * from (unpivot (select id, id + 1 as n from orders) on n into name k value v)
select m::varchar from felt where m = 'good'::mood
select * from shown where total > 10
select a.id, b.id as other from orders a asof join orders b on a.day >= b.day and a.name = b.name
select name.upper().lower() as n, id.abs() from orders
select 'x' collate nocase = 'X' as same, name collate nocase as n from orders
select id, (select count(*) from customers c where c.name = o.name) as n from orders o
select o.id, k.city from orders o, lateral (select city from customers c where c.name = o.name) k
select hash(name), md5(name), sha256(name), base64(name::blob), to_json(s), json_object('a', id) from orders
select (timestamp '2024-01-01 10:00' at time zone 'Europe/Berlin')::varchar as t, make_date(2024, 1, 2), epoch(day), dayname(day), last_day(day), age(day, date '2020-01-01') from orders
select name, count(*) from orders where day between date '2024-01-05' and date '2024-02-01' and id not in (1, 2) group by name order by 2 desc, 1 nulls last offset 1
select format('{:>6}|{}', name, id), printf('%05d', id), hex(id), bin(id), to_base(id, 16) from orders
select a from made
select id, name from orders where name similar to 'n[0-9]' and name not ilike 'N1' -- the end
/* before */ select id /* between */ from orders;
""".strip().splitlines()


async def rows_of(store: DuckDBDataStore, source: SourceSpec) -> pa.Table:
    async with aclosing(store.read(source, batch_rows=1_000)) as batches:
        return pa.concat_tables([to_table(batch) async for batch in batches])


@pytest.mark.line("10")
async def test_ordinary_queries_give_what_the_engine_gives(store: DuckDBDataStore) -> None:
    assert len(ORDINARY) >= 50
    with duckdb.connect() as raw:
        for statement in SHELF:
            raw.execute(statement)
        for query in ORDINARY:
            wanted = raw.execute(query).fetchall()
            got = raw.execute(f"SELECT * FROM (\n{read_query(query).text}\n) AS source").fetchall()
            assert wanted, query
            assert sorted(map(str, got)) == sorted(map(str, wanted)), query
            judge_source(query)
        for query in ORDINARY[:5]:
            read = await rows_of(store, SourceSpec(query=query))
            assert read.num_rows == len(raw.execute(query).fetchall()), query


@pytest.mark.line("10", "14")
async def test_parameters_by_the_engines_own_tokens(store: DuckDBDataStore) -> None:
    for query in (
        "select id from orders where id = :n",
        "select id from orders where id=:n",
        "select id from orders where id = $n and ':n' <> ' :n' /* :n */ -- :n",
        "select id from orders where id between :n and :n",
        "select id from orders where id in (:n, :n) and l[1:2] is not null and {'a': 1} is not null and id::int = 7",
        "select id from orders where list_contains([$n], id)",
        "select case when id = :n then id else :n end as id from orders limit 1",
    ):
        found = await rows_of(store, SourceSpec(query=query, parameters={"n": 7}))
        assert found.column("id").to_pylist() == [7], query
    for query, code in (
        ("select [:n] as a", "query.unparsable"),
        ("select l[1:n] from orders", "query.unparsable"),
        ("select {'a':n} from orders", "query.unparsable"),
        ("select a :n from orders", "query.unparsable"),
        ("select :other", "query.parameter_missing"),
        ("select $other", "query.parameter_missing"),
    ):
        with pytest.raises(QueryRefusedError) as caught:
            read_query(query, frozenset({"n"}))
        assert caught.value.code == code, query
    assert "write $n" in _message("select l[1:n] from orders")
    assert (
        await rows_of(store, SourceSpec(query="select l[1:id] as a from orders", parameters={"n": 1}))
    ).num_rows == 60


def _message(query: str) -> str:
    with pytest.raises(QueryRefusedError) as caught:
        read_query(query, frozenset({"n"}))
    return caught.value.message


@pytest.mark.line("10", "12")
@pytest.mark.parametrize(
    "macro",
    ["lower(x) AS 'disguised'", "duckdb_views() AS TABLE SELECT 1", '"+"(a, b) AS 7', "Struct_Extract(a, b) AS 7"],
)
async def test_macro_of_the_file_is_not_taken_for_a_built_in(tmp_path: Path, macro: str) -> None:
    """Not by a query, nor by our own statements, which look for what a view leads to."""
    path = tmp_path / "own.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'a' AS a")
        connection.execute("CREATE MACRO my_upper(x) AS upper(x)")
        connection.execute("CREATE VIEW v AS SELECT my_upper(a) AS a FROM t")
    store = DuckDBDataStore(DuckDBOptions(path=path))
    await store.open()
    assert (await rows_of(store, SourceSpec(query="select a from v"))).to_pylist() == [{"a": "A"}]
    await store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE MACRO {macro}")

    with pytest.raises(PlatformError) as caught:
        await store.open()

    assert caught.value.code == "store.own_functions"
    assert macro.partition("(")[0].strip('"').lower() in caught.value.message


@pytest.mark.line("10a")
async def test_only_plain_reads_run_inside_a_writing_statement(store: DuckDBDataStore) -> None:
    for query, may in (
        ("select id, name as n, 1 as one, cast(id as varchar) as t from orders where id > 3 or name is null", True),
        ("from orders", True),
        ("select case when id > 1 then 'a' end as a, coalesce(name, 'x') as b from main.orders", True),
        ("select lower(name) as a from orders", False),
        ("select id + 1 as a from orders", False),
        ("select name.upper() as a from orders", False),
        ("select current_date as a from orders", False),
        ("select l[1] as a from orders", False),
        ("select 'good'::mood as a from orders", False),
        ("select * from shown", False),
        ("select * from made", False),
        ("select * from orders join customers using (name)", False),
        ("with orders as (from shown) from orders", False),
        ("select (select total from shown limit 1) as a from orders", False),
    ):
        assert await store.may_run_inside(SourceSpec(query=query)) is may, query


def test_looking_at_a_query_costs_little() -> None:
    query = ORDINARY[15]
    read_query(query)
    assert min(_seconds(query) for _ in range(15)) < 0.005


def _seconds(query: str) -> float:
    started = time.thread_time()
    read_query(query)
    return time.thread_time() - started
