"""Renames, casts, drops, Python functions, keys and names at the destination: what steps do to rows and counts."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from domain.errors import InvalidInputError, WorkFailedError
from domain.pipelines.steps import CastStep, DropStep, PythonStep, RenameStep, SqlStep, Step
from domain.ports.data_store import JudgedBatch
from domain.ports.transformer import ITransformer, TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import DELETED, ORDINAL, Column
from infrastructure.bench.bench import Bench
from infrastructure.transforms.python import PythonHooks
from tests.ports.transformers import transformer_on

ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "qty": pa.array(["1", "x", "3"])})
SOURCE = (Column("id", "int64"), Column("qty", "string"))


@pytest.fixture(params=["duckdb", "child"])
def transformer(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> ITransformer:
    (tmp_path / "hooks.py").write_text(
        "import pyarrow as pa, pyarrow.compute as pc\n"
        "def twice(rows):\n    return pa.concat_tables([rows, rows])\n"
        "def odd(rows):\n    return rows.filter(pc.equal(pc.bit_wise_and(rows['id'], 1), 1))\n"
        "def upper(rows):\n    return rows.drop_columns(['_headrace_ordinal'])"
        ".append_column('up', pc.utf8_upper(rows['qty']))\n"
        "def fewer(rows):\n    return rows.drop_columns(['_headrace_ordinal']).slice(1)\n"
        "def broken(rows):\n    raise KeyError('a secret value') if rows.num_rows else None\n    return rows\n"
        "def foreign(rows):\n    return rows.set_column(rows.schema.get_field_index('_headrace_ordinal'), "
        "'_headrace_ordinal', pc.add(rows['_headrace_ordinal'], 100))\n"
    )
    return transformer_on(request.param, bench, tmp_path)


async def applied(transformer: ITransformer, *steps: Step, rows: pa.Table = ROWS, **plan: Any) -> JudgedBatch:
    async with transformer.prepare(TransformPlan(source=plan.pop("source", SOURCE), steps=steps, **plan)) as prepared:
        judged = await prepared.apply(rows)
        accepted = pa.table(judged.accepted)
        beside = (DELETED, ORDINAL)
        assert [c.name for c in prepared.columns] == [n for n in accepted.column_names if n not in beside]
        return judged


def accepted(judged: JudgedBatch) -> list[dict[str, Any]]:
    rows = pa.table(judged.accepted)
    return rows.drop_columns([name for name in rows.column_names if name == ORDINAL]).to_pylist()


@pytest.mark.clause("ITransformer", 3)
async def test_rename_cast_and_drop_follow_each_other(transformer: ITransformer) -> None:
    judged = await applied(
        transformer,
        RenameStep({"qty": "quantity", "id": "key"}),
        CastStep({"quantity": "decimal(12,2)"}),
        SqlStep("select *, quantity * 2 as double from batch"),
        DropStep(("key",)),
    )

    assert accepted(judged) == [
        {"quantity": Decimal("1.00"), "double": Decimal("2.00")},
        {"quantity": Decimal("3.00"), "double": Decimal("6.00")},
    ]
    assert (judged.counts.read, judged.counts.used, judged.counts.failed, judged.counts.filtered) == (3, 2, 1, 0)
    refused = pa.table(judged.refused).to_pylist()
    assert [(row["ordinal"], row["kind"], row["reason"]) for row in refused] == [
        (1, "conversion", "quantity does not convert")
    ]


@pytest.mark.clause("ITransformer", 3)
async def test_rows_that_fail_in_different_casts_are_each_counted_once(transformer: ITransformer) -> None:
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "qty": ["x", "300", "7"]})

    judged = await applied(
        transformer, CastStep({"qty": "int64"}), SqlStep("select * from batch"), CastStep({"qty": "int8"}), rows=rows
    )

    assert accepted(judged) == [{"id": 3, "qty": 7}]
    assert (judged.counts.used, judged.counts.failed, judged.counts.filtered) == (1, 2, 0)


@pytest.mark.clause("ITransformer", 1)
@pytest.mark.parametrize(
    ("name", "used", "produced", "filtered"), [("upper", 3, 3, 0), ("twice", 3, 6, 0), ("odd", 2, 2, 1)]
)
async def test_python_steps_are_counted_over_source_rows(
    name: str, used: int, produced: int, filtered: int, transformer: ITransformer
) -> None:
    judged = await applied(transformer, PythonStep(f"local.hooks:{name}"))

    counts = judged.counts
    assert (counts.read, counts.used, counts.produced, counts.filtered) == (3, used, produced, filtered)
    assert pa.table(judged.accepted).num_rows == produced
    assert ORDINAL not in pa.table(judged.accepted).column_names


@pytest.mark.clause("ITransformer", 2)
async def test_all_that_came_of_a_refused_row_is_refused_with_it(transformer: ITransformer) -> None:
    rule = Rule("sql", OnViolation.QUARANTINE, expression="id <> 2")

    judged = await applied(
        transformer, SqlStep("select * from batch"), PythonStep("local.hooks:twice"), CastStep({"qty": "string"}),
        rules=(rule,),
    )  # fmt: skip

    assert sorted(row["id"] for row in accepted(judged)) == [1, 1, 3, 3]
    counts = judged.counts
    assert (counts.read, counts.used, counts.produced, counts.quarantined) == (3, 2, 4, 1)
    assert pa.table(judged.refused).column("ordinal").to_pylist() == [1]


@pytest.mark.parametrize(
    ("name", "code"),
    [("broken", "transform.python"), ("fewer", "transform.python"), ("foreign", "transform.python")],
)
async def test_python_step_that_breaks_the_rules_fails_by_name(name: str, code: str, transformer: ITransformer) -> None:
    with pytest.raises(WorkFailedError) as failed:
        await applied(transformer, PythonStep(f"local.hooks:{name}"))

    assert failed.value.code == code
    assert f"hooks:{name}" in failed.value.message
    assert "secret" not in failed.value.message


@pytest.mark.line("36a")
async def test_python_step_that_is_not_there_or_not_allowed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("def odd(rows):\n    return rows\n")
    (tmp_path / "linked.py").symlink_to("/etc/hostname")
    hooks = PythonHooks(allowed=("local.hooks:odd",), folder=tmp_path)
    hooks.load("local.hooks:odd")  # What is allowed is there.

    for refused, name in ((hooks, "nothing"), (PythonHooks(folder=tmp_path), "nothing")):
        with pytest.raises(InvalidInputError, match="nothing"):
            refused.load(name)
    for name in ("local.gone:odd", "local.linked:odd", "local.hooks:gone"):
        with pytest.raises(InvalidInputError) as unknown:
            PythonHooks(folder=tmp_path).load(name)
        assert unknown.value.code == "transform.python_unknown"


async def test_python_functions_tell_where_they_come_from(transformer: ITransformer) -> None:
    plan = TransformPlan(source=SOURCE, steps=(PythonStep("local.hooks:odd"),))

    async with transformer.prepare(plan) as prepared:
        [hook] = prepared.hooks

    assert (hook["name"], hook["package"], len(hook["source_sha256"])) == ("local.hooks:odd", "local", 64)


@pytest.mark.parametrize(
    "step",
    [RenameStep({"gone": "x"}), CastStep({"gone": "int64"}), DropStep(("gone",)), DropStep(("id", "qty")),
     RenameStep({"id": "QTY"})],
    ids=str,
)  # fmt: skip
async def test_step_over_a_column_that_is_not_there_is_refused(step: Step, transformer: ITransformer) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await applied(transformer, step)

    assert refused.value.code in ("transform.column_missing", "transform.invalid")


@pytest.mark.clause("ITransformer", 7)
async def test_last_row_of_each_key_of_a_batch_is_accepted(transformer: ITransformer) -> None:
    rows = pa.table({"id": pa.array([1, 2, 1, 3, 2], pa.int64()), "qty": ["a", "b", "c", "d", "e"]})

    judged = await applied(transformer, rows=rows, key=("id",))

    assert accepted(judged) == [{"id": 1, "qty": "c"}, {"id": 3, "qty": "d"}, {"id": 2, "qty": "e"}]
    assert (judged.counts.used, judged.counts.produced, judged.counts.deduplicated) == (5, 5, 2)
    with pytest.raises(WorkFailedError) as refused:
        await applied(transformer, rows=rows.set_column(0, "id", pa.array([1, None, 2, 3, 4], pa.int64())), key=("id",))
    assert refused.value.code == "merge.key_null"


async def test_rows_say_whether_their_key_is_gone(transformer: ITransformer) -> None:
    judged = await applied(transformer, deleted_when="qty = 'x'")

    assert pc.sum(pa.table(judged.accepted).column(DELETED)).as_py() == 1


async def test_names_take_the_destinations_case(transformer: ITransformer) -> None:
    rows = pa.table({"OrderID": pa.array([1], pa.int64()), "Qty": ["1"]})
    source = (Column("OrderID", "int64"), Column("Qty", "string"))

    there = (Column("QTY", "int64"),)
    judged = await applied(transformer, rows=rows, source=source, normalizes=True, target=there)
    assert accepted(judged) == [{"orderid": 1, "QTY": 1}]
    judged = await applied(transformer, rows=rows, source=source)
    assert accepted(judged) == [{"OrderID": 1, "Qty": "1"}]
