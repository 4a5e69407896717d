"""What is converted, guessed and compared is worked out in parts that are small, or where it may fail: DuckDB keeps room for each
part of a statement in memory that it does not count, and takes the square of their number to plan it.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from application.loads.guesses import settled
from application.loads.plan_read import _single_number
from domain.errors import InvalidInputError
from domain.loads.read_set import SourcePlan
from domain.loads.way import TEXT_WIRE, Facts, Way, choose_way
from domain.pipelines.spec import PipelineSpec
from domain.pipelines.steps import CastStep, RenameStep, SqlStep
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.stores.files import csv_guess
from infrastructure.tabular.arrow import to_table
from infrastructure.threads import OneThread
from infrastructure.transforms.duckdb import DuckDBTransform
from infrastructure.transforms.engine import for_many_parts, locked_down
from infrastructure.transforms.runs import runs_of
from infrastructure.transforms.sizes import has_many_parts, is_written, keeps_size

pytestmark = pytest.mark.line("29")
_COLUMNS = 160
_MOST_PARTS = 60


class _Heard:
    """A connection that remembers what it was told."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.told: list[str] = []

    def execute(self, sql: str, *more: Any) -> Any:
        self.told.append(sql)
        return self._connection.execute(sql, *more)

    def sql(self, sql: str, **more: Any) -> Any:
        self.told.append(sql)
        return self._connection.sql(sql, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def columns_read_at_once(self) -> int:
        """How many columns the statement tries to convert that converts most."""
        return max(len(set(re.findall(r'TRY_CAST\("(\w+)"', sql))) for sql in self.told)


def test_types_of_many_columns_are_guessed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = _Heard(duckdb.connect(":memory:"))
    monkeypatch.setattr(csv_guess, "_instance", lambda: heard)
    monkeypatch.setattr(heard, "cursor", lambda: heard, raising=False)
    monkeypatch.setattr(heard, "close", lambda: None, raising=False)
    rows = {f"c{n}": pa.array(["1", "x" if n == 100 else "2"]) for n in range(_COLUMNS)}
    found = csv_guess.guess_types(pa.table(rows))
    assert {name for name, kind in found.items() if kind != "int64"} == {"c100"}
    assert 0 < heard.columns_read_at_once() <= _MOST_PARTS


@pytest.fixture
def transform() -> Iterator[Any]:
    opened: list[DuckDBTransform] = []

    def one(plan: TransformPlan, memory: str = "128MB") -> tuple[DuckDBTransform, _Heard]:
        heard = _Heard(locked_down(memory, 1))
        runs = [(run, None) for run, _ in runs_of(plan)]
        thread = OneThread("transform")
        opened.append(DuckDBTransform(plan, thread, runs, engine=lambda: heard))
        opened[-1].begin()
        return opened[-1], heard

    yield one
    for each in opened:
        each.close()
        each._thread.close()


@pytest.mark.parametrize("steps", [(), (SqlStep("select *, c0 + 1 as more from batch"),), (RenameStep({"c1": "d"}),)])
def test_many_columns_of_text_are_converted_some_at_a_time_and_alike(transform: Any, steps: tuple[Any, ...]) -> None:
    names = [f"c{n}" for n in range(_COLUMNS)]
    kinds = {name: "string" if n % 3 == 2 else ("int64", "date")[n % 3] for n, name in enumerate(names)}
    values = {"int64": ["1", "2", None, "4"], "date": ["2026-01-02"] * 4, "string": ["x"] * 4}
    columns = {name: values[kinds[name]] for name in names} | {
        "c120": ["1", "y", "3", "4"],
        "c60": ["1", "x", "3", "4"],
        "c3": ["1", "2", "3", "z"],
    }
    wide = TransformPlan(
        tuple(Column(name, kinds[name]) for name in names),
        steps,
        source_is_text=True,
        guessed=tuple(name for name in names if kinds[name] != "string"),
    )
    prepared, heard = transform(wide)
    judged = prepared.judge(pa.table({name: pa.array(given, pa.string()) for name, given in columns.items()}))
    assert 0 < heard.columns_read_at_once() <= _MOST_PARTS
    assert (judged.counts.read, judged.counts.used, judged.counts.failed) == (4, 2, 2)
    assert judged.measures.unconverted == {"c60": 1, "c3": 1}
    few = [name for name in names if name in ("c0", "c1", "c2", "c3", "c60", "c120")]
    narrow, _ = transform(
        TransformPlan(
            tuple(Column(name, kinds[name]) for name in few), steps, source_is_text=True, guessed=wide.guessed
        )
    )
    alike = narrow.judge(pa.table({name: pa.array(columns[name], pa.string()) for name in few}))
    one, other = to_table(judged.accepted), to_table(alike.accepted)
    assert one.select(other.column_names).equals(other)
    assert judged.counts == alike.counts


_WANTED = {f"c{n}": ("int32", "date", "string", "decimal(9,2)")[n % 4] for n in range(_COLUMNS)}
_INTEGERS = {name: "int64" for name, kind in _WANTED.items() if kind == "int32"}
_UPPER = SqlStep("select *, upper(c2) as loud from batch")
_LOWER = SqlStep("select *, lower(c2) as soft from batch")


@pytest.mark.parametrize(
    ("steps", "lands", "is_text"),
    [
        ((), True, False),
        ((CastStep(_WANTED),), False, True),
        ((CastStep(_INTEGERS), _UPPER), True, True),
        ((_UPPER, CastStep(_WANTED), RenameStep({"c0": "first"}), _LOWER), False, False),
        ((CastStep(_WANTED), CastStep(dict.fromkeys(_WANTED, "string")), CastStep(_WANTED)), True, False),
    ],
    ids=["landing", "cast", "cast and landing", "cast between steps", "casts"],
)
def test_many_casts_and_columns_of_a_table_are_converted_some_at_a_time_and_alike(
    transform: Any, steps: tuple[Any, ...], lands: bool, is_text: bool
) -> None:
    values = {
        "int32": ["1", None, "3", "4", "5"],
        "date": ["2026-01-02", "0001-01-01", None, "9999-12-31", "2026-01-02"],
        "string": ["x", "", "007", None, "y"],
        "decimal(9,2)": ["1.5", "2", "0.25", None, "-1"],
    }
    columns = {name: list(values[kind]) for name, kind in _WANTED.items()}
    for row, name in ((1, "c48"), (1, "c120"), (3, "c121"), (3, "c0"), (4, "c159")):
        columns[name][row] = "z"

    def judged(names: list[str]) -> tuple[Any, _Heard]:
        few = tuple(replace(s, types={n: k for n, k in s.types.items() if n in names}) if isinstance(s, CastStep) else s
                    for s in steps)  # fmt: skip
        target = tuple(Column(name, _WANTED[name]) for name in names) if lands else ()
        plan = TransformPlan(
            tuple(Column(name, "string") for name in names), few, target=target, source_is_text=is_text
        )
        prepared, heard = transform(plan)
        assert prepared.columns
        return prepared.judge(pa.table({name: pa.array(columns[name], pa.string()) for name in names})), heard

    wide, heard = judged(list(_WANTED))
    narrow, _ = judged(["c0", "c1", "c2", "c3", "c48", "c120", "c121", "c159"])
    assert 0 < heard.columns_read_at_once() <= _MOST_PARTS
    one, other = to_table(wide.accepted), to_table(narrow.accepted)
    assert one.select(other.column_names).equals(other)
    assert wide.counts == narrow.counts
    assert (wide.counts.read, wide.counts.used, wide.counts.failed) == (5, 2, 3)
    assert wide.measures.unconverted == narrow.measures.unconverted == {"c48": 1, "c0": 1, "c159": 1}
    refused = [name for name in to_table(wide.refused).column_names if name not in ("record", "columns")]
    assert to_table(wide.refused).select(refused).equals(to_table(narrow.refused).select(refused))
    found = {name: one.column(name).to_pylist() for name in one.column_names}
    assert found["c2"] == ["x", "007"]
    assert found["c4"] == [1, 3]
    assert found["c156"] == found["c4"]
    assert [str(value) for value in found["c7"]] == ["1.50", "0.25"]
    assert [str(value) for value in found["c5"]] == ["2026-01-02", "None"]


@pytest.mark.parametrize(
    ("kind", "values", "accepted"),
    [
        ("int64", range(6_000), [0, 5_999, None]),
        ("decimal(9,2)", [f"{n}.5" for n in range(6_000)], ["0.50", "5999.50", None]),
        ("native:numeric", [f"{n}.5" for n in range(6_000)], ["0.50", "5999.5", None]),
        ("string", [f"v{n}" for n in range(6_000)], ["v0", "v5999", None]),
        ("date", [f"{n:04}-01-01" for n in range(1, 6_001)], ["0001-01-01", "6000-01-01", None]),
    ],
)
def test_many_accepted_values_take_no_more_than_few(
    transform: Any, kind: str, values: Any, accepted: list[Any]
) -> None:
    rule = Rule("accepted_values", on_violation=OnViolation.QUARANTINE, column="a", values=tuple(values))
    plan = TransformPlan((Column("a", kind),), rules=(rule,), source_is_text=True)
    prepared, heard = transform(plan)
    others = {"int64": "6000", "date": "6001-01-01"}.get(kind, "7000")
    given = [None if value is None else str(value) for value in [*accepted, others]]
    judged = prepared.judge(pa.table({"a": pa.array(given, pa.string())}))
    assert (judged.counts.used, judged.counts.quarantined) == (3, 1)
    assert max(map(len, heard.told)) < 10_000


def test_what_does_not_fit_into_memory_is_told_by_name(transform: Any) -> None:
    rule = Rule("accepted_values", column="a", values=tuple(f"v{n}" for n in range(6_000)))
    plan = TransformPlan((Column("a", "string"),), rules=(rule,))
    with pytest.raises(InvalidInputError, match="more memory") as refused:
        transform(plan, "1MB")
    assert refused.value.code == "query.too_large"
    transform(replace(plan, rules=(replace(rule, values=("v1",)),)), "1MB")


def test_a_destination_converts_no_more_than_some_columns_while_it_writes() -> None:
    wire = {"reading": TEXT_WIRE, "landing": TEXT_WIRE}
    few, many = (Facts(keeps_values=False, only_converts=True, merges=False, width=n, **wire) for n in (100, 101))  # type: ignore[arg-type]
    assert (choose_way(few).way, choose_way(many).way) == (Way.TEXT, Way.ARROW)


_NUMBERS = (Column("a", "native:numeric"),)


@pytest.mark.parametrize(
    ("large", "twin"),
    [
        (TransformPlan(_NUMBERS, rules=(Rule("accepted_values", column="a", values=tuple(range(2_001))),)), 1),
        (TransformPlan(_NUMBERS, rules=(Rule("between", column="a", minimum=1, maximum=2),) * 101), 20),
        (TransformPlan(_NUMBERS, (CastStep({"a": "float64"}), CastStep({"a": "string"})) * 101), 20),
        (TransformPlan(tuple(Column(f"c{n}", "int64") for n in range(1_000)), (RenameStep({"c1": "d"}),) * 21), 20),
    ],
    ids=["values", "bounds", "casts", "columns"],
)
def test_plans_of_many_parts_are_compiled_and_run_in_a_child(large: TransformPlan, twin: int) -> None:
    assert is_written(large)
    assert not keeps_size(large)
    rules = (
        [Rule("accepted_values", column="a", values=(1, 2))] if large.rules[:1] and twin == 1 else large.rules[:twin]
    )
    few = TransformPlan(large.source, large.steps[:twin], tuple(rules))
    assert not is_written(few)
    assert keeps_size(few)


_FLOATS = tuple(Column(f"c{n}", "string") for n in range(800))
_LANDING = tuple(Column(f"c{n}", "float64") for n in range(800))


@pytest.mark.parametrize(
    "plan",
    [
        TransformPlan(_FLOATS, (CastStep({column.name: "float64" for column in _FLOATS}),)),
        TransformPlan(_FLOATS, target=_LANDING),
        TransformPlan((Column("C", "string"),), (RenameStep({"C": "d"}),), target=_LANDING),
        TransformPlan(_FLOATS[:1], (SqlStep("select " + ", ".join(["c0 as a"] * 3_000) + " from batch"),)),
        TransformPlan(_FLOATS[:1], rules=(Rule("not_null", column="c0"),) * 501),
    ],
    ids=["casts", "columns there", "columns there after a step", "SQL", "rules"],
)
def test_no_part_of_a_plan_of_many_is_compared_with_each_other(plan: TransformPlan) -> None:
    assert has_many_parts(plan)
    assert not has_many_parts(TransformPlan(plan.source[:40], target=plan.target[:40]))


def test_an_engine_for_many_parts_compares_none_of_them() -> None:
    """Compared, a thousand casts took five seconds, and twice as many four times as long."""
    for engine, expected in ((for_many_parts, "common_subexpressions"), (locked_down, "")):
        connection = engine("256MB", 1)
        assert connection.execute("SELECT current_setting('disabled_optimizers')").fetchall() == [(expected,)]
        connection.close()


def test_as_many_columns_as_a_table_has_are_converted_where_it_may_fail() -> None:
    large = TransformPlan(_FLOATS, target=_LANDING)
    shouted = TransformPlan(
        tuple(Column(column.name.upper(), "string") for column in _FLOATS), target=_LANDING, normalizes=True
    )
    assert is_written(large)
    assert is_written(shouted)
    assert not is_written(TransformPlan(_FLOATS, target=_FLOATS))
    assert not is_written(TransformPlan(_FLOATS[:400], target=_LANDING[:400]))


def test_thousands_of_columns_are_found_among_thousands_at_once() -> None:
    names = [f"C{n}" for n in range(5_000)]
    kinds = tuple((name, "int64") for name in names)
    there = TableSchema(TableName("t"), tuple(Column(name.lower(), "float64") for name in names))
    document = {"pipeline": "p", "source": {"path": "a.csv"}, "destination": {"table": "t"}}
    plan = SourcePlan(
        columns=kinds, streams=(), ordered=True, is_text=True, guessed=tuple(names), unproved=tuple(names)
    )
    begun = time.process_time()
    found = settled(PipelineSpec.from_document(document), plan, there)
    transform = TransformPlan(tuple(map(Column, names, ["float64"] * 5_000)), target=there.columns, normalizes=True)
    assert not transform.keeps_values
    assert all(there.has(name) for name in transform.landing_names(names))
    assert time.process_time() - begun < 0.5  # Each by itself took seconds, with the loop.
    assert {kind for _, kind in found.columns} == {"float64"}
    assert transform.landing_name("C7") == "c7"
    assert transform.landing_name("D") == "d"
    assert found.unproved == tuple(names)


class _Large:
    """A row with a list of millions of items."""

    nbytes = 100_000_000

    def to_pylist(self) -> list[Any]:
        raise AssertionError("Python would have each item as an object.")


def test_what_is_expected_is_one_number_and_no_list_of_millions() -> None:
    rule = Rule("completeness", expected="select 1", threshold=1.0)
    assert _single_number(pa.table({"n": [7]}), rule) == 7
    for batch in (pa.table({"n": ["7"]}), pa.table({"n": [[7]]}), _Large()):
        with pytest.raises(InvalidInputError, match="one whole number"):
            _single_number(batch, rule)
