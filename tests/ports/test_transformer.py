"""One suite for ITransformer."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError, QualityRejectedError, WorkFailedError
from domain.pipelines.steps import SqlStep
from domain.ports.data_store import JudgedBatch
from domain.ports.transformer import ITransformer, TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column

QUARANTINE = OnViolation.QUARANTINE


async def applied(
    transformer: ITransformer,
    table: pa.Table,
    *steps: str,
    rules: tuple[Rule, ...] = (),
    source: dict[str, str] | None = None,
    target: dict[str, str] | None = None,
    is_text: bool = False,
) -> JudgedBatch:
    kinds = source or {
        name: {"int64": "int64", "string": "string", "double": "float64"}[str(table.schema.field(name).type)]
        for name in table.column_names
    }
    plan = TransformPlan(
        source=tuple(Column(name, kind) for name, kind in kinds.items()),
        steps=tuple(SqlStep(sql) for sql in steps),
        rules=rules,
        target=tuple(Column(name, kind) for name, kind in (target or {}).items()),
        source_is_text=is_text,
    )
    async with transformer.prepare(plan) as prepared:
        return await prepared.apply(table)


def accepted(judged: JudgedBatch) -> list[dict[str, Any]]:
    return pa.table(judged.accepted).to_pylist()


def refused(judged: JudgedBatch) -> list[dict[str, Any]]:
    return pa.table(judged.refused).to_pylist()


@pytest.mark.clause("ITransformer", 1)
@pytest.mark.invariant("D6")
async def test_each_row_is_counted_once(transformer: ITransformer) -> None:
    table = pa.table({"id": ["1", "x", "3", "4", "5"], "v": ["1", "1", "1", "99", "1"]})

    judged = await applied(
        transformer,
        table,
        "select * from batch where id <> 5",
        rules=(Rule("between", QUARANTINE, column="v", maximum=10),),
        source={"id": "int64", "v": "int64"},
        is_text=True,
    )

    counts = judged.counts
    assert (counts.read, counts.used, counts.filtered, counts.quarantined, counts.failed) == (5, 2, 1, 1, 1)
    assert counts.produced == 2
    assert accepted(judged) == [{"id": 1, "v": 1}, {"id": 3, "v": 1}]


@pytest.mark.clause("ITransformer", 2)
async def test_refused_row_is_kept_as_it_was_read(transformer: ITransformer) -> None:
    table = pa.table({"id": [1, 2], "name": ["ada", "bob"]})

    judged = await applied(
        transformer,
        table,
        "select id, upper(name) as name from batch",
        rules=(Rule("matches", QUARANTINE, column="name", pattern="A.*"),),
    )

    assert [(row["ordinal"], row["kind"], row["rule"]) for row in refused(judged)] == [(1, "rule", "matches(name)")]
    assert json.loads(refused(judged)[0]["record"]) == {"id": 2, "name": "bob"}
    assert judged.measures.first_errors[0].kind == "rule"


@pytest.mark.clause("ITransformer", 3)
@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("12", "int64", 12),
        ("-7", "int32", -7),
        ("1.5", "int64", None),
        ("１０", "int64", None),
        ("99999999999999999999", "int64", None),
        ("300", "int8", None),
        ("1.50", "decimal(12,2)", Decimal("1.50")),
        ("1.505", "decimal(12,2)", None),
        ("1e3", "float64", 1000.0),
        ("abc", "float64", None),
        ("1.797e309", "float64", None),
        ("1_000.5", "float64", None),
        ("-inf", "float64", float("-inf")),
        ("2013-01-01", "date", "2013-01-01"),
        ("2013-01-01 10:00", "date", None),
        ("2013-02-30", "date", None),
        ("2013-01-01T10:00:00Z", "timestamptz", "2013-01-01 10:00:00+00:00"),
        ("2013-01-01T10:00:00+02", "timestamptz", "2013-01-01 08:00:00+00:00"),
        ("2013-01-01T10:00:00", "timestamp", "2013-01-01 10:00:00"),
        ("2013-01-01T10:00:00+02", "timestamp", None),
        ("2013-01-01 10:00:00 ", "timestamp", "2013-01-01 10:00:00"),
        *((f"2013-01-01 10:00:00{zone}", "timestamp", None) for zone in ("+02:00 ", "Z\t", "+02:00:30", " x", " EST")),
        *((f"2013-01-01 10:00:00 {zone}", "timestamp", None) for zone in ("America/New_York", "None/Such", "+02", "z")),
        ("2013-01-01 10:00:00 America/New_York", "timestamptz", "2013-01-01 15:00:00+00:00"),
        ("2013-01-01 10:00:00+02:00:30", "timestamptz", "2013-01-01 07:59:30+00:00"),
        ("2013-01-01 10:00:00 None/Such", "timestamptz", None),
        ("2013-01-01 10:00:00+14:00", "timestamptz", "2012-12-31 20:00:00+00:00"),
        *(
            (f"2013-01-01 10:00:00{zone}", "timestamptz", None)
            for zone in ("+15", "-15:59", "+99", "+02:60", "+02:00:60")
        ),
        *(
            (f"0000-01-01{rest}", kind, None)
            for kind, rest in (("date", ""), ("timestamp", " 10:00"), ("timestamptz", " 10:00Z"))
        ),
        ("0001-01-01", "date", "0001-01-01"),
        ("0999-12-31 10:00:00", "timestamp", "0999-12-31 10:00:00"),
        (f"2013-01-01 10:00:00 {'A' * 30_000_000}", "timestamptz", None),
        ("2013-01-01 10:00:00.123456", "timestamp", "2013-01-01 10:00:00.123456"),
        ("2013-01-01 10:00:00.123456789", "timestamp", None),
        ("2013-01-01 10:00:00.123456789Z", "timestamptz", None),
        ("2013-01-01 10:00:00.123456000Z", "timestamptz", "2013-01-01 10:00:00.123456+00:00"),
        ("2013-01-01 24:00:00", "timestamp", None),
        ("2013-01-01 23:59:60Z", "timestamptz", None),
        ("10:20", "time", "10:20:00"),
        ("24:00:00", "time", None),
        ("true", "bool", True),
        ("maybe", "bool", None),
        ('{"a": 1}', "json", '{"a": 1}'),
        ("\\x41fF", "binary", b"A\xff"),
        ("\\x", "binary", b""),
        ("a\\x41", "binary", None),
        ("\\x4", "binary", None),
        ("{a", "json", None),
        ("0189-x", "uuid", None),
    ],
)
async def test_text_converts_without_loss_or_fails(
    transformer: ITransformer, text: str, kind: str, expected: object
) -> None:
    judged = await applied(transformer, pa.table({"v": [text, None]}), source={"v": kind}, is_text=True)

    found = [row["v"] for row in accepted(judged)]
    if expected is None:
        assert found == [None]
        assert judged.counts.failed == 1
    else:
        assert [str(found[0]) if isinstance(expected, str) else found[0], found[1]] == [expected, None]


@pytest.mark.clause("ITransformer", 3)
async def test_value_that_the_destination_cannot_take_fails_its_row(transformer: ITransformer) -> None:
    table = pa.table({"v": [1.0, 1.5, 3.0]})

    judged = await applied(transformer, table, target={"v": "int64"})

    assert accepted(judged) == [{"v": 1}, {"v": 3}]
    assert judged.counts.failed == 1
    assert refused(judged)[0]["reason"] == "v does not convert"


@pytest.mark.clause("ITransformer", 4)
@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) as n from batch",
        "select id from batch group by id",
        "select distinct id from batch",
        "select *, row_number() over () as n from batch",
        "select * from batch limit 1",
        "select * from batch order by id",
        "select b.* from batch b join batch c on true",
        "select (select max(id) from batch) as m from batch",
        "select * from batch union all select * from batch",
        "select unnest([1, 2]) as u from batch",
        "select * from other",
    ],
)
async def test_transform_that_depends_on_the_batch_is_refused(transformer: ITransformer, sql: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await applied(transformer, pa.table({"id": [1, 2]}), sql)

    assert caught.value.code == "transform.not_row_wise"


@pytest.mark.clause("ITransformer", 4)
@pytest.mark.parametrize(
    "sql", ["select random() as r from batch", "select now() as n from batch", "select uuid() as u from batch"]
)
async def test_transform_that_gives_another_result_on_resume_is_refused(transformer: ITransformer, sql: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await applied(transformer, pa.table({"id": [1, 2]}), sql)

    assert caught.value.code == "transform.not_deterministic"


@pytest.mark.clause("ITransformer", 5)
@pytest.mark.parametrize(
    "sql",
    [
        "select * from '/etc/passwd'",
        "select * from read_csv('/etc/passwd')",
        "select getenv('HOME') as h from batch",
        "attach '/tmp/x.db'",
        "copy batch to '/tmp/x'",
        "select content from read_text('/etc/passwd')",
        "set threads = 1",
    ],
)
async def test_transform_reaches_nothing_but_its_batch(transformer: ITransformer, sql: str) -> None:
    with pytest.raises(InvalidInputError):
        await applied(transformer, pa.table({"id": [1]}), sql)

    assert accepted(await applied(transformer, pa.table({"id": [1]}), "select id + 1 as id from batch")) == [{"id": 2}]


@pytest.mark.clause("ITransformer", 6)
async def test_values_and_patterns_of_rules_are_data(transformer: ITransformer) -> None:
    names = ["a'; drop", "a\n", "b"]
    table = pa.table({"name": names})
    accept = Rule("accepted_values", QUARANTINE, column="name", values=("a'; drop", "b"))
    whole = Rule("matches", QUARANTINE, column="name", pattern="[ab]")

    assert [row["name"] for row in accepted(await applied(transformer, table, rules=(accept,)))] == ["a'; drop", "b"]
    assert [row["name"] for row in accepted(await applied(transformer, table, rules=(whole,)))] == ["b"]
    backtracking = Rule("matches", QUARANTINE, column="name", pattern="(a+)+$")
    await applied(transformer, pa.table({"name": ["a" * 100 + "b"]}), rules=(backtracking,))
    with pytest.raises(InvalidInputError):
        await applied(transformer, table, rules=(Rule("matches", column="name", pattern="(?=a)"),))


async def test_row_rules_judge_as_their_names_say(transformer: ITransformer) -> None:
    table = pa.table({"id": pa.array([1, None, 3, 4], pa.int64()), "v": [1.0, 2.0, float("nan"), 9.0]})
    cases = {
        Rule("not_null", QUARANTINE, column="id"): [1],
        Rule("between", QUARANTINE, column="v", minimum=1.5, maximum=8): [0, 2, 3],
        Rule("accepted_values", QUARANTINE, column="id", values=(1, 3)): [3],
        Rule("sql", QUARANTINE, expression="v < 5 -- small"): [2, 3],
    }
    for rule, ordinals in cases.items():
        judged = await applied(transformer, table, rules=(rule,))
        assert [row["ordinal"] for row in refused(judged)] == ordinals, rule.label


async def test_violated_rule_fails_or_warns(transformer: ITransformer) -> None:
    table = pa.table({"id": [1, 2]})
    with pytest.raises(QualityRejectedError):
        await applied(transformer, table, rules=(Rule("between", column="id", maximum=1),))

    judged = await applied(transformer, table, rules=(Rule("between", OnViolation.WARN, column="id", maximum=1),))

    assert judged.counts.used == 2
    assert judged.measures.violations == {"0:between": 1}


async def test_failure_on_a_value_does_not_show_it(transformer: ITransformer) -> None:
    with pytest.raises(WorkFailedError) as caught:
        await applied(transformer, pa.table({"name": ["secret-value"]}), "select cast(name as integer) as n from batch")

    assert "secret-value" not in caught.value.message
    with pytest.raises(InvalidInputError) as unknown:
        await applied(transformer, pa.table({"id": [1]}), "select nope from batch")
    assert "nope" in unknown.value.message


async def test_every_function_that_duckdb_calls_unstable_is_refused() -> None:
    import duckdb

    from infrastructure.queries.duckdb_steps import read_step

    names = duckdb.sql(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND stability <> "
        "'CONSISTENT'"
    ).to_arrow_table()
    found = names.column(0).to_pylist()
    assert "random" in found
    for name in found:
        with pytest.raises(InvalidInputError):
            read_step(f"select {name}() as x from batch")
    with pytest.raises(InvalidInputError):
        read_step("select age(born) as x from batch")
    read_step("select age(died, born) as x from batch")


async def test_reading_that_stops_early_leaves_nothing_running(postgres_database: str) -> None:
    import threading
    from contextlib import aclosing

    from domain.pipelines.spec import SourceSpec
    from domain.stores.table import TableName
    from infrastructure.stores.postgres.store import PostgresDataStore
    from tests.ports.backends import address_of

    store = PostgresDataStore(address_of(postgres_database))
    await store.write(TableName("s"), [pa.table({"id": list(range(200_000))})])
    await asyncio.to_thread(lambda: None)  # The loop's own thread, which interrupts drivers, stays.
    before = threading.active_count()
    for _ in range(3):
        async with aclosing(store.read(SourceSpec(table=TableName("s")), batch_rows=10)) as batches:
            await anext(batches)
    assert threading.active_count() <= before
