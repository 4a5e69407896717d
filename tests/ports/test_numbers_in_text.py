"""Numbers beyond Arrow and DuckDB, and other types that travel as text: exact in casts and rules, or
refused by name.
"""

import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInputError
from domain.pipelines.steps import CastStep, SqlStep, Step
from domain.ports.data_store import JudgedBatch
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from infrastructure.tabular.numbers_in_text import digits_allowed, is_above, is_below, is_one_of, spelled
from infrastructure.transforms.conversions import conversion
from infrastructure.transforms.duckdb import DuckDBTransformer

_DIGITS = st.text("0123456789", min_size=1, max_size=45)
NUMBERS = st.builds(
    lambda sign, whole, places: f"{sign}{whole.lstrip('0') or '0'}{'.' + places if places else ''}",
    st.sampled_from(["", "-"]),
    st.sampled_from(["0", "1", "9", "10", "12"]) | _DIGITS,
    st.sampled_from(["", "0", "5", "50", "05", "000001"]) | _DIGITS,
)
CONNECTION = duckdb.connect()


def places_of(number: Decimal) -> int:
    """How many digits behind the point say something."""
    return len(f"{number:f}".partition(".")[2].rstrip("0"))


def asked(expression: str, **parameters: str) -> Any:
    return CONNECTION.execute(f"SELECT {expression}", parameters or None).fetchall()[0][0]


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS)
def test_comparison_is_that_of_the_numbers(left: str, right: str) -> None:
    bound = spelled(right)

    assert asked(is_below("$a", "$b", bound), a=left, b=bound) is (Decimal(left) < Decimal(right))
    assert asked(is_above("$a", "$b", bound), a=left, b=bound) is (Decimal(left) > Decimal(right))
    assert asked(is_one_of("$a", ["$b"]), a=left, b=bound) is (Decimal(left) == Decimal(right))


def test_infinities_and_nan_are_ordered_as_in_postgres() -> None:
    order = ["-Infinity", "-1e40", "0", "0.5", "1e40", "Infinity", "NaN"]
    texts = [spelled(value) for value in order]
    for place, left in enumerate(texts):
        for other, right in enumerate(texts):
            assert asked(is_below("$a", "$b", right), a=left, b=right) is (place < other), (left, right)
            assert asked(is_above("$a", "$b", right), a=left, b=right) is (place > other), (left, right)


@settings(max_examples=50, deadline=None)
@given(NUMBERS, st.integers(1, 60), st.integers(0, 20))
def test_digits_allowed_are_those_that_fit(text: str, precision: int, scale: int) -> None:
    number = Decimal(text)
    fits = abs(number) < Decimal(10) ** (precision - scale) and places_of(number) <= scale
    pattern = digits_allowed(f"native:numeric({precision},{scale})")

    assert asked("regexp_full_match($a, $p)", a=text, p=pattern) is fits


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_casts_of_numeric_keep_the_value_or_fail(text: str) -> None:
    number = Decimal(text)

    def cast(wanted: str) -> Any:
        return asked(conversion("$a", "native:numeric", wanted), a=text)

    found = cast("decimal(38,6)")
    assert (found == number) if abs(number) < 10**32 and places_of(number) <= 6 else found is None
    whole = cast("int64")
    assert (whole == number) if -(2**63) <= number < 2**63 and places_of(number) == 0 else whole is None
    double = cast("float64")
    assert double is None or Decimal(repr(double)) == number or len(text.replace(".", "").strip("-0")) <= 15


def test_casts_of_numeric_to_doubles_keep_what_a_double_has() -> None:
    for text, expected in {
        "12.50": 12.5,
        "0.30000000000000004": 0.1 + 0.2,
        "0.30000000000000001": None,
        "NaN": float("nan"),
        "-Infinity": float("-inf"),
        "0." + "0" * 400 + "1": None,
        "1" + "0" * 400: None,
    }.items():
        found = asked(conversion("$a", "native:numeric", "float64"), a=text)
        assert struct.pack("d", found) == struct.pack("d", expected) if expected is not None else found is None, text


async def applied(
    values: Sequence[str | None], kind: str, *steps: Step, rules: tuple[Rule, ...] = ()
) -> tuple[JudgedBatch, dict[str, str]]:
    """Apply steps and rules to a column `v` of a type that travels as text; what was accepted, and the
    types after it.
    """
    rows = pa.table({"id": range(len(values)), "v": pa.array(values, pa.string())})
    plan = TransformPlan(source=(Column("id", "int64"), Column("v", kind)), steps=steps, rules=rules)
    async with DuckDBTransformer().prepare(plan) as prepared:
        return await prepared.apply(rows), {column.name: column.type for column in prepared.columns}


def accepted(judged: JudgedBatch) -> list[Any]:
    return pa.table(judged.accepted).column("v").to_pylist()


@pytest.mark.parametrize("kind", ["native:numeric", "decimal(50,2)", "native:numeric(50,2)"])
async def test_rules_on_numbers_in_text_compare_numbers(kind: str) -> None:
    keep = OnViolation.QUARANTINE
    values = ["12.50", "9.99", "100", "100.01", "-3", None, "1" * 45]
    between = Rule("between", column="v", minimum=9.99, maximum=100, on_violation=keep)
    listed = Rule("accepted_values", column="v", values=(12.5, "100.00", -3), on_violation=keep)

    judged, _ = await applied(values, kind, rules=(between,))
    assert accepted(judged) == ["12.50", "9.99", "100", None]
    judged, _ = await applied(values, kind, rules=(listed,))
    assert accepted(judged) == ["12.50", "100", "-3", None]


async def test_nan_is_above_every_number() -> None:
    values = ["NaN", "Infinity", "-Infinity", "1"]

    judged, _ = await applied(values, "native:numeric", rules=(Rule("between", column="v", maximum=5).patient,))

    assert accepted(judged) == ["-Infinity", "1"]


@pytest.mark.parametrize(
    ("kind", "rule", "expected"),
    [
        ("native:mood", Rule("accepted_values", column="v", values=("a",)), ["a"]),
        ('native:"Mood Of"', Rule("accepted_values", column="v", values=("a",)), ["a"]),
        ("native:character(5)", Rule("matches", column="v", pattern="[a-z]"), ["a", "b"]),
        ("uuid", Rule("accepted_values", column="v", values=("A",)), ["a"]),
        ("native:inet", Rule("not_null", column="v"), ["a", "b"]),
        ("json", Rule("sql", expression="length(v) = 1"), ["a", "b"]),
        ("native:mood", Rule("sql", expression="v = 'a'"), ["a"]),
    ],
)
async def test_rules_that_make_sense_of_text_are_judged(kind: str, rule: Rule, expected: list[str]) -> None:
    judged, _ = await applied(["a", "b"], kind, rules=(rule.patient,))

    assert accepted(judged) == expected


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("native:mood", Rule("between", column="v", minimum="a")),
        ("native:inet", Rule("accepted_values", column="v", values=("10.0.0.1",))),
        ("native:inet", Rule("between", column="v", minimum="10.0.0.1")),
        ("json", Rule("accepted_values", column="v", values=("{}",))),
        ("native:json", Rule("between", column="v", minimum="{}")),
        ("native:integer[]", Rule("accepted_values", column="v", values=("{1}",))),
        ("native:timestamp(3) without time zone", Rule("between", column="v", minimum="2024-01-01")),
        ("native:numeric", Rule("between", column="v", minimum="ten")),
        ("native:numeric", Rule("sql", expression="v > 2")),
        ("decimal(39,0)", Rule("sql", expression="V + 1 < 2")),
    ],
)
async def test_rules_that_text_cannot_answer_are_refused_by_column_and_type(kind: str, rule: Rule) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await applied(["1"], kind, rules=(rule,))

    assert refused.value.code == "quality.type"
    assert kind in refused.value.message
    assert "Binder" not in refused.value.message


@pytest.mark.clause("ITransformer", 3)
async def test_cast_of_numeric_counts_what_does_not_fit_as_failed() -> None:
    values = ["12.50", "12.5000000", "0.0000001", "NaN", "Infinity", "1" * 40, "-0.000001", None]

    judged, types = await applied(values, "native:numeric", CastStep({"v": "decimal(38,6)"}))

    assert types["v"] == "decimal(38,6)"
    assert accepted(judged) == [Decimal("12.500000"), Decimal("12.500000"), Decimal("-0.000001"), None]
    assert judged.counts.failed == 4


@pytest.mark.parametrize(
    ("step", "types"),
    [
        ("select id, v::varchar as v from batch", {"v": "string"}),
        ("select id, (v) as v from batch", {"v": "native:mood"}),
        ("select batch.id, batch.v from batch", {"v": "native:mood"}),
        ("select * from batch", {"v": "native:mood"}),
        ("select *, v as w, upper(v) as u from batch", {"v": "native:mood", "w": "native:mood", "u": "string"}),
        ("select * replace (v::varchar as v) from batch", {"v": "string"}),
        ("select * exclude (v), v::varchar as V from batch", {"V": "string"}),
        ("select * rename (v as w) from batch", {"w": "native:mood"}),
        ("select id, try_cast(v as uuid) as v from batch", {"v": "uuid"}),
        ("select id, coalesce(v, 'none') as v from batch", {"v": "string"}),
        ("select id, 1::hugeint as v, 't'::bit as b from batch where false", {"v": "decimal(39,0)", "b": "native:BIT"}),
        ("select v as id, id as v from batch", {"id": "native:mood", "v": "int64"}),
        ("select id, {'v': v} as s, [v] as l from batch", {"s": "struct<v:string>", "l": "list<string>"}),
        ("select id, {'v': v}.v as v from batch", {"v": "string"}),
        ("select id, to_json(v) as v from batch", {"v": "native:json"}),
    ],
)
async def test_step_keeps_the_type_of_a_column_it_repeats_and_no_other(step: str, types: dict[str, str]) -> None:
    _, found = await applied(["a"], "native:mood", SqlStep(step))

    assert {name: kind for name, kind in found.items() if name != "id" or "id" in types} == types


async def test_step_makes_numbers_of_39_digits_that_arrive_whole() -> None:
    step = SqlStep("select id, v::hugeint as v, '340282366920938463463374607431768211455'::uhugeint as u from batch")

    judged, types = await applied(["170141183460469231731687303715884105727"], "decimal(39,0)", step)

    assert types == {"id": "int64", "v": "decimal(39,0)", "u": "native:UHUGEINT"}
    assert pa.table(judged.accepted).select(["v", "u"]).to_pylist() == [
        {"v": "170141183460469231731687303715884105727", "u": "340282366920938463463374607431768211455"}
    ]


async def test_step_that_compares_text_as_numbers_names_the_columns() -> None:
    with pytest.raises(InvalidInputError, match="In steps v is text"):
        await applied(["1"], "native:numeric", SqlStep("select id, v + 1 as v from batch"))


@pytest.mark.line("29")
@pytest.mark.parametrize("column", ["v", "id"])
@pytest.mark.parametrize("number", ["1e3000000", "-1e3000000", "1e-3000000", "0e3000000"])
async def test_exponents_that_stand_for_more_digits_than_any_number_has_are_refused(column: str, number: str) -> None:
    """A hundred bytes of a rule would be written out as gigabytes of zeros, in a call that nothing interrupts."""
    for rule in (
        Rule("between", column=column, minimum=number),
        Rule("accepted_values", column=column, values=("1", number)),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await applied(["1"], "native:numeric", rules=(rule,))
        assert refused.value.code == "quality.type"
        assert "thousand digits" in refused.value.message

    judged, _ = await applied(["1"], "native:numeric", rules=(Rule("between", column=column, maximum="1e300"),))
    assert accepted(judged) == ["1"]
