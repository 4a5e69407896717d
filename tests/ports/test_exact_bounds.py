"""Rules compare whole numbers and decimals with the number that the document says, to the last digit."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInputError
from domain.pipelines.spec import PipelineSpec
from domain.ports.transformer import TransformPlan
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from entrypoints.documents.reading import read_text
from infrastructure.tabular.arrow import arrow_type
from infrastructure.transforms.duckdb import DuckDBTransformer

KEEP = OnViolation.QUARANTINE


async def accepted(kind: str, values: list[Any], rule: Rule) -> list[Any]:
    rows = pa.table({"v": pa.array(values, arrow_type(kind))})
    async with DuckDBTransformer().prepare(TransformPlan(source=(Column("v", kind),), rules=(rule,))) as prepared:
        return pa.table((await prepared.apply(rows)).accepted).column("v").to_pylist()


def between(minimum: Any = None, maximum: Any = None) -> Rule:
    return Rule("between", KEEP, column="v", minimum=minimum, maximum=maximum)


def exactly(number: int, scale: int) -> Decimal:
    return Decimal((0, tuple(map(int, str(number))), -scale))


KINDS = {"decimal(38,20)": 20, "decimal(20,2)": 2, "decimal(38,0)": 0, "int64": 0, "uint64": 0, "int16": 0}


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_between_judges_values_near_the_bound_as_decimals_do(kind: str, data: st.DataObject) -> None:
    scale = KINDS[kind]
    most = {"int16": 2**15, "uint64": 2**64, "int64": 2**63}.get(kind, 10 ** (20 if "20," in kind else 38)) - 1
    base = data.draw(st.integers(0, most) | st.integers(max(0, most - 3), most) | st.integers(0, 1000))
    near = {min(max(base + step, 0), most) for step in (-1, 0, 1)}
    values = [exactly(n, scale) if scale or kind.startswith("decimal") else n for n in near]
    fraction = data.draw(st.sampled_from(["", "5", "0001", "999999999999999999999999999"]))
    text = f"{exactly(base, scale):f}"
    bound = (text if "." in text else f"{text}.") + fraction if fraction else text

    async def judged() -> tuple[list[Any], list[Any], list[Any]]:
        low, high = await accepted(kind, values, between(bound)), await accepted(kind, values, between(None, bound))
        return low, high, await accepted(kind, values, Rule("accepted_values", KEEP, column="v", values=(bound, None)))

    low, high, same = asyncio.run(judged())

    assert low == [value for value in values if Decimal(value) >= Decimal(bound)]
    assert high == [value for value in values if Decimal(value) <= Decimal(bound)]
    assert same == [value for value in values if Decimal(value) == Decimal(bound)]


@pytest.mark.parametrize("kind", ["decimal(4,2)", "int8", "uint32"])
async def test_bounds_beyond_the_type_and_infinity_are_bounds_too(kind: str) -> None:
    values = [Decimal("12.00") if kind.startswith("decimal") else 12, None]

    for far in ("1e400", "Infinity", "NaN", 10**30, 1e300):
        assert await accepted(kind, values, between(maximum=far)) == values
        assert await accepted(kind, values, between(minimum=far)) == [None]
    for far in ("-1e400", "-Infinity", -(10**30)):
        assert await accepted(kind, values, between(minimum=far)) == values
        assert await accepted(kind, values, between(maximum=far)) == [None]
    assert await accepted(kind, values, Rule("accepted_values", KEEP, column="v", values=(12.5, "1e400", None))) == [
        None
    ]
    with pytest.raises(InvalidInputError) as refused:
        await accepted(kind, values, between("ten"))
    assert refused.value.code == "quality.type"


async def test_a_number_is_what_a_real_column_holds_of_it() -> None:
    values = [0.1, 0.2, None]

    assert await accepted("float32", values, between(maximum=0.1)) == [pytest.approx(0.1), None]
    assert await accepted("float32", values, between(minimum=0.2)) == [pytest.approx(0.2), None]
    assert len(await accepted("float32", values, Rule("accepted_values", KEEP, column="v", values=(0.1,)))) == 2
    assert await accepted("float32", values, between(maximum=1e300)) == [pytest.approx(0.1), pytest.approx(0.2), None]


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("timestamp", "2024-01-31T12:00:00+05:00"),
        ("timestamp", "2024-01-31 02:00:00 PM"),
        ("timestamp", "noon"),
        ("timestamptz", "2024-01-31 02:00:00 PM EST"),
        ("date", "2024-01-31 12:00:00"),
        ("time", "12:00+02"),
    ],
)
async def test_bound_of_a_time_that_says_more_than_its_column_holds_is_refused(kind: str, bound: str) -> None:
    for rule in (between(minimum=bound), Rule("accepted_values", KEEP, column="v", values=(bound,))):
        with pytest.raises(InvalidInputError) as refused:
            await accepted(kind, [None], rule)
        assert (refused.value.code, kind in refused.value.message) == ("quality.type", True)


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("date", "2024-02-30"),
        ("date", "0000-01-31"),
        ("timestamp", "2024-02-30 10:00"),
        ("timestamptz", "2024-02-30 10:00"),
        ("timestamptz", "2024-01-31 10:00:00 PM"),
        ("timestamptz", "2024-01-31 10:00:00 Foo"),
        ("timestamptz", "2024-01-31 10:00:00+99"),
        ("bool", "maybe"),
        ("float64", "x"),
        ("interval", "soon"),
        ("binary", "\\xZZ"),
        ("int64", "ten"),
        ("decimal(12,2)", "ten"),
    ],
)
async def test_text_that_is_no_value_of_its_column_is_refused_by_rule_and_bound_before_rows(
    kind: str, bound: str
) -> None:
    for rule in (
        between(minimum=bound),
        between(maximum=bound),
        Rule("accepted_values", KEEP, column="v", values=(bound, None)),
    ):
        with pytest.raises(InvalidInputError) as refused:
            async with DuckDBTransformer().prepare(TransformPlan(source=(Column("v", kind),), rules=(rule,))):
                pass
        assert refused.value.code == "quality.type"
        assert refused.value.message.startswith(f"The rule {rule.kind}(v) compares {kind} with {bound!r}, which is no")

    assert await accepted("string", [bound], Rule("accepted_values", KEEP, column="v", values=(bound,))) == [bound]


async def test_bound_of_a_time_may_be_a_date_and_have_a_zone_where_the_column_has_one() -> None:
    noon = datetime(2024, 1, 31, 12, tzinfo=UTC)

    assert await accepted("timestamp", [noon.replace(tzinfo=None)], between("2024-01-31", "2024-01-31T12:00")) == [
        noon.replace(tzinfo=None)
    ]
    assert await accepted("timestamptz", [noon], between(maximum="2024-01-31 12:00:00+01:00")) == []
    assert await accepted("timestamptz", [noon], between(minimum="2024-01-31 12:00:00+01:00")) == [noon]
    assert await accepted("date", [noon.date()], between("2024-01-31", "2024-01-31")) == [noon.date()]


async def test_null_among_the_accepted_values_accepts_null_and_nothing_else() -> None:
    rule = Rule("accepted_values", KEEP, column="v", values=("a", None))

    assert await accepted("string", ["a", "b", None], rule) == ["a", None]
    assert await accepted("string", ["a", None], Rule("accepted_values", KEEP, column="v", values=(None,))) == [None]


@pytest.mark.parametrize("is_json", [False, True], ids=["yaml", "json"])
async def test_a_bound_of_a_document_keeps_its_digits(is_json: bool, tmp_path: Path) -> None:
    body = (
        '{"version": 1, "pipeline": "p", "source": {"connection": "a", "table": "s"}, "destination": {"connection": '
        '"b", "table": "t"}, "quality": [{"rule": "between", "column": "v", "max": 12345678901234567.88, '
        '"on_violation": "quarantine"}, {"rule": "accepted_values", "column": "v", "values": [0.1, '
        "12345678901234567890.25, 18446744073709551615]}]}"
    )
    spec = PipelineSpec.from_document(read_text(body, "p", {}, is_json=is_json).body)

    first, second = spec.quality
    values = [Decimal("12345678901234567.88"), Decimal("12345678901234567.89")]
    assert await accepted("decimal(20,2)", values, first) == values[:1]
    assert second.values == (0.1, "12345678901234567890.25", "18446744073709551615")
