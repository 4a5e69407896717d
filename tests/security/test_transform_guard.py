"""What a step or a rule may be: what smuggled another result into a resumed run is refused, beside its
permitted twin.
"""

from typing import Any

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError
from domain.pipelines.steps import SqlStep
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from infrastructure.queries.duckdb_steps import read_predicate, read_step
from infrastructure.tabular.arrow import columns_of, to_table
from infrastructure.transforms.duckdb import DuckDBTransformer

NOT_ROW_WISE, UNSTABLE, RESERVED = "transform.not_row_wise", "transform.not_deterministic", "transform.reserved_name"
REFUSED = [
    ("select random() as a from batch", UNSTABLE, "select 'random()' as a from batch"),
    ("select RANDOM () as \"a\" from batch", UNSTABLE, 'select a as "random()" from batch'),
    ("select a from batch where random() < 0.5", UNSTABLE, "select a from batch where a < 0.5"),
    ("select list_transform(l, lambda x: random()) as a from batch", UNSTABLE,
     "select list_transform(l, lambda x: x + 1) as a from batch"),
    ("select a.random() as b from batch", UNSTABLE, "select a.upper() as b from batch"),
    ("select * replace (now() as a) from batch", UNSTABLE, "select * replace (upper(a) as a) from batch"),
    ("select current_date as a from batch", UNSTABLE, "select batch.current_date as a from batch"),
    ('select "current_timestamp" as a from batch', UNSTABLE, "select current_user as a from batch"),
    ("select current_date.year() as a from batch", UNSTABLE, "select a.year() as a from batch"),
    ("select localtime as a from batch", UNSTABLE, "select a as localtime from batch"),
    ("select age(a) as a from batch", UNSTABLE, "select age(a, b) as a from batch"),
    ("select ago(interval 1 day) as a from batch", UNSTABLE, "select a - interval 1 day as a from batch"),
    ("select today() as a from batch", UNSTABLE, "select date_trunc('day', a) as a from batch"),
    ("select case when true then uuid() end as a from batch", UNSTABLE, "select case when a then b end as a from batch"),
    ("select main.random() as a from batch", UNSTABLE, "select main.lower(a) as a from batch"),
    ("select nextval('s') as a from batch", "query.forbidden_function", "select next as a from batch"),
    ("select getvariable('x') as a from batch", "query.forbidden_function", "select 'getvariable' as a from batch"),
    ("select current_setting('TimeZone') as a from batch", "query.forbidden_function", "select a as current_setting from batch"),
    ("select getenv('HOME') as a from batch", "query.forbidden_function", "select a.getenv as a from batch"),
    ("select my_macro(a) as a from batch", "query.forbidden_function", "select md5(a) as a from batch"),
    ("select error('x') as a from batch", "query.forbidden_function", "select error as a from batch"),
    ("select create_sort_key(a, 'asc') as a from batch", "query.forbidden_function", "select hash(a) as a from batch"),
    ("select sum(a) as a from batch", NOT_ROW_WISE, "select list_sum(a) as a from batch"),
    ("select a.sum() as a from batch", NOT_ROW_WISE, "select a.abs() as a from batch"),
    ("select 1 as a from batch having count(*) > 1", NOT_ROW_WISE, "select 1 as a from batch where a > 1"),
    ("select sum(a) over () as a from batch", NOT_ROW_WISE, "select a as over_all from batch"),
    ("select a from batch qualify row_number() over () = 1", NOT_ROW_WISE, "select a as qualify_ from batch"),
    ("select (select 1) as a from batch", NOT_ROW_WISE, "select (1) as a from batch"),
    ("select a in (from batch) as a from batch", NOT_ROW_WISE, "select a in (1, 2) as a from batch"),
    ("select a from batch, batch as b", NOT_ROW_WISE, "select b.a from batch as b"),
    ("select unnest(l) as a from batch", NOT_ROW_WISE, "select l[1] as a from batch"),
    ("select regexp_split_to_table(a, ',') as a from batch", NOT_ROW_WISE, "select string_split(a, ',') as a from batch"),
    ("select a from batch, unnest(l) u", NOT_ROW_WISE, "select a, l from batch"),
    ("select a from batch tablesample 50%", NOT_ROW_WISE, 'select a as "tablesample" from batch'),
    ("select a from batch using sample 1", NOT_ROW_WISE, "select a from batch"),
    ("select a from batch union all select a from batch", NOT_ROW_WISE, "from batch select a"),
    ("select a from batch limit 1", NOT_ROW_WISE, 'select a as "limit" from batch'),
    ("select a from batch order by a", NOT_ROW_WISE, 'select a as "order" from batch'),
    ("select distinct a from batch", NOT_ROW_WISE, "select a is distinct from b as a from batch"),
    ("select a from batch group by all", NOT_ROW_WISE, 'select "all" from batch'),
    ("select columns('_head.*') from batch", NOT_ROW_WISE, "select * exclude (b) from batch"),
    ("select columns(*) from batch", NOT_ROW_WISE, "select batch.* from batch"),
    ("select #1 from batch", NOT_ROW_WISE, "select 1 as n from batch"),
    ("select coalesce(*columns(*)) as a from batch", NOT_ROW_WISE, "select coalesce(a, b) as a from batch"),
    ("select *, * from batch", NOT_ROW_WISE, "select *, s.* from batch"),
    ("select b.x from batch as b(x, y)", NOT_ROW_WISE, "select b.a as x from batch as b"),
    ("with batch as (select 1 as a) select a from batch", NOT_ROW_WISE, "select a as with_ from batch"),
    ("select a from other", NOT_ROW_WISE, "select a as other from batch"),
    ("select a from main.batch", NOT_ROW_WISE, "select a from BATCH"),
    ("select 1 as a", NOT_ROW_WISE, "select 1 as a from batch"),
    ("from batch", NOT_ROW_WISE, "from batch select *"),
    ("select $a as a from batch", NOT_ROW_WISE, "select '$a' as a from batch"),
    ("from batch pivot (sum(a) for b in (1))", NOT_ROW_WISE, "select a as pivot_ from batch"),
    ("select _headrace_ordinal as a from batch", RESERVED, "select _headrace_loaded_at as a from batch"),
    ('select "_HEADRACE_ORDINAL" as a from batch', RESERVED, "select '_headrace_ordinal' as a from batch"),
    ("select * rename (_headrace_ordinal as a) from batch", RESERVED, "select * rename (b as a) from batch"),
    ("select * exclude (_headrace_ordinal) from batch", RESERVED, "select * exclude (b) from batch"),
    ("select batch._headrace_ordinal as a from batch", RESERVED, "select batch.a from batch"),
    ("select a as _headrace_failed from batch", RESERVED, "select a as failed from batch"),
    ("select a\u00a0$a$ || random() || $a$ from batch", "query.forbidden_type", "select a\u00a0b from batch"),
    ("select a::mood as a from batch", "query.forbidden_type", "select a::varchar as a from batch"),
    ("select a from batch; drop table x", "query.multiple_statements", "select a from batch;"),
    ("select a from batch) as x; drop table y; --", "query.unparsable", "select a from batch -- x"),
    ("select a from batch) union all (select b from batch", "query.unparsable", "select (a) as b from batch"),
    ("select a from batch /*", "query.unparsable", "select a /* b */ from batch"),
    ("delete from batch", "query.not_readonly", "select 'delete' as a from batch"),
    ("with x as (delete from batch returning *) from x", "query.not_readonly", "select a as x from batch"),
    ("from (describe batch)", "query.not_readonly", "select a as describe_ from batch"),
]  # fmt: skip


@pytest.mark.line("10", "14")
@pytest.mark.parametrize(("sql", "code", "twin"), REFUSED, ids=[sql[:60] for sql, *_ in REFUSED])
def test_step_that_is_not_of_one_row_or_not_the_same_again(sql: str, code: str, twin: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_step(sql)

    assert caught.value.code == code, caught.value.message
    read_step(twin)


@pytest.mark.line("10", "14")
@pytest.mark.parametrize(
    ("expression", "twin"),
    [
        ("a) or (b", "(a) or (b)"),
        ("a) as verdict from batch --", "a -- as verdict from batch"),
        ("a) as verdict, (b", "a = 'a) as verdict, (b'"),
        ("a) from batch where (b", "a > 1 and (b)"),
        ("a, b", "a = b"),
        ("-- a", "true -- a"),
        ("", "true"),
        ("a /*", "a /* b */"),
        ("a = 1; drop table x", "a = ';'"),
        ("a > random()", "a > 0.5"),
        ("a > (select max(a) from batch)", "a > greatest(b, c)"),
        ("sum(a) > 1", "list_sum(a) > 1"),
        ("current_date > a", "date '2024-01-01' > a"),
        ("_headrace_ordinal % 2 = 0", "id % 2 = 0"),
        ("exists (from read_csv('x'))", "a like 'read_csv(%'"),
        ("a = 1 limit 1", "a = 1"),
        ("*", "a"),
        ("columns(*) is not null", "a is not null"),
    ],
)
def test_condition_is_one_expression(expression: str, twin: str) -> None:
    with pytest.raises(InvalidInputError):
        read_predicate(expression)

    read_predicate(twin)


@pytest.mark.line("11")
@pytest.mark.parametrize(
    ("sql", "is_preserving"),
    [
        ("select * from batch", True),
        ("select *, upper(a) as b, a || '-' || b as c, a::int + 1 as d from batch", True),
        ("select case when a > 1 then lower(trim(b)) else left(c, 3) end as d from batch", True),
        ("select regexp_extract(a, '(x)', 1) as x, s.a as y, l[1] as z, md5(a) as m from batch", True),
        ("select replace(a, ',', '.') as a, upper(b) as b, c from batch", True),
        ("select " + ", ".join(f"lower(c{n}) as c{n}" for n in range(30)) + " from batch", True),
        ("select " + " || ".join(f"c{n}" for n in range(30)) + " as c from batch", True),
        ("select *, a as b, a as c, a as d from batch", True),
        ("select *, a as b, a as c, a as d, a as e from batch", False),
        ("select *, s.* from batch", True),
        ("select string_split(b, ',') as l from batch", False),
        ("select replace(a, 'x', b) as c from batch", False),
        ("select length(replace(a, 'x', b)) as c from batch", False),
        ("select a from batch where length(replace(a, 'x', b)) > 1", False),
        ("select " + " || ".join(["a"] * 101) + " as b from batch", False),
        ("select " + ", ".join(f"a as a{n}" for n in range(120)) + " from batch", False),
        ("select list_transform(l, lambda x: a) as b from batch", False),
        ("select list_reduce(l, lambda s, x: s || s) as b from batch", False),
        ("select repeat(a, 1000) as b from batch", False),
        ("select repeat(a, b) as c from batch", False),
        ("select list_transform(range(300000000), lambda x: x) as c from batch", False),
        ("select length(lpad('x', 1000000000, 'x')) as c from batch", False),
        ("select a from batch where range(b) is not null", False),
        ("select null::int[100000] as c from batch", False),
        ("select list_resize(l, 100000, 1) as b from batch", False),
        ("select json_pretty(a) as b from batch", False),
        ("select json_extract(a, '$..*') as b from batch", False),
        ("select concat_ws(a, b, c) as d from batch", False),
    ],
)
def test_growth_of_a_step_is_known(sql: str, is_preserving: bool) -> None:
    step = read_step(sql)

    assert step.is_size_preserving is is_preserving, step.growth
    assert read_predicate("length(replace(a, 'x', b)) > 1").is_size_preserving is False
    assert read_predicate("length(a || b) > 1").is_size_preserving is True


def test_what_a_step_repeats_of_the_batch() -> None:
    columns = [Column("id", "int64"), Column("Name", "native:citext"), Column("s", "struct<a:int64>")]
    for sql, expected in (
        ("select * from batch", {"id": "id", "name": "Name", "s": "s"}),
        ("select id as x, (name) as y, s.a, upper(name) as name from batch", {"x": "id", "y": "Name"}),
        ("select b.* exclude (id) rename (name as title) from batch b", {"title": "Name", "s": "s"}),
        ("select * replace (1 as id) from batch", {"name": "Name", "s": "s"}),
        ("select batch.name, s.* from batch", {"name": "Name"}),
    ):
        carried = read_step(sql).carried(columns)
        assert {name: column.name for name, column in carried.items()} == expected, sql


async def judged(rows: dict[str, list[Any]], *steps: str, rule: str | None = None) -> list[dict[str, Any]]:
    table = pa.table(rows)
    rules = (Rule("sql", OnViolation.QUARANTINE, expression=rule),) if rule else ()
    plan = TransformPlan(source=columns_of(table.schema), steps=tuple(map(SqlStep, steps)), rules=rules)
    async with DuckDBTransformer().prepare(plan) as prepared:
        found: list[dict[str, Any]] = to_table((await prepared.apply(table)).accepted).to_pylist()
    return found


async def test_row_as_a_whole_is_not_looked_at_unless_it_is_a_column() -> None:
    for sql in (
        "select to_json(batch)::varchar as a from batch",
        "select b as a from batch as b",
        "select hash(batch) as a from batch",
    ):
        with pytest.raises(InvalidInputError) as caught:
            await judged({"a": [1, 2]}, sql)
        assert caught.value.code == NOT_ROW_WISE, sql

    assert await judged({"batch": [1, 2]}, "select batch + 1 as a from batch") == [{"a": 2}, {"a": 3}]
    assert await judged({"current_date": [1]}, "select batch.current_date as a from batch") == [{"a": 1}]


async def test_steps_give_what_they_say_and_rules_are_negated_whole() -> None:
    rows = {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    assert await judged(rows, "from batch select a * 2 as a", "select a, a || '!' as t from batch; -- end") == [
        {"a": 2, "t": "2!"}, {"a": 4, "t": "4!"}, {"a": 6, "t": "6!"}
    ]  # fmt: skip
    assert await judged(rows, rule="a = 1 or b = 'z' -- either") == [{"a": 1, "b": "x"}, {"a": 3, "b": "z"}]
    assert await judged(rows, "select *, [x + 1 for x in [a, a]] as l from batch where b <> 'y'") == [
        {"a": 1, "b": "x", "l": [2, 2]}, {"a": 3, "b": "z", "l": [4, 4]}
    ]  # fmt: skip
