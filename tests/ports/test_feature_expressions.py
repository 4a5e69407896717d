"""An on-demand feature has one value, whether Python or DuckDB makes it."""

import itertools
import math
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInputError, PlatformError
from domain.features.expressions import OPERATIONS, Call, Expression, Kind, compiled, sql_of
from infrastructure.queries.feature_expressions import expression_of
from infrastructure.sql import quote

COLUMNS = {
    **dict.fromkeys("ij", Kind.INTEGER),
    **dict.fromkeys("xy", Kind.NUMBER),
    **dict.fromkeys("bc", Kind.BOOLEAN),
    **dict.fromkeys("ts", Kind.TEXT),
}
SAMPLES: dict[Kind, list[Any]] = {
    Kind.INTEGER: [None, 0, 1, -1, 2, 3, -7, 2**53 + 1, 2**62, -(2**63), 2**63 - 1],
    Kind.NUMBER: [
        *(None, 0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 0.49999999999999994, 2.0**52 + 1, 2.0**53, 9.3e18),
        *(math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, -(2.0**63)),
    ],
    Kind.BOOLEAN: [None, True, False],
    Kind.TEXT: [None, "", "a", "A", "ab", "\u00e9", "\U0001f600", "it's"],
}
VALUES = {
    Kind.INTEGER: st.sampled_from(SAMPLES[Kind.INTEGER]) | st.integers(-50, 50),
    Kind.NUMBER: st.sampled_from(SAMPLES[Kind.NUMBER]) | st.floats(-100, 100),
    Kind.BOOLEAN: st.sampled_from(SAMPLES[Kind.BOOLEAN]),
    Kind.TEXT: st.sampled_from(SAMPLES[Kind.TEXT]),
}
ROWS = st.tuples(*(VALUES[kind] for kind in COLUMNS.values()))
OF_TWO = {
    "ij": ["+", "-", "*", "/", "//", "%", "=", "<>", "<", "<=", ">", ">="],
    "xy": ["+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">="],
    "ix": ["+", "-", "*", "/", "%", "=", "<", ">="],
    "bc": ["and", "or", "=", "<", ">="],
    "ts": ["||", "=", "<>", "<", ">="],
}
OF_MORE = [
    "greatest({0}, {1})",
    "least({0}, {1})",
    "nullif({0}, {1})",
    "coalesce({0}, {1})",
    "{0} in ({1}, null)",
    "{0} in ({1})",
]
OF_ONE = {
    "i": ["-i", "abs(i)", "floor(i)", "sqrt(i)", "cast(i as double)", "cast(i as boolean)", "cast(i as bigint)"],
    "x": ["-x", "abs(x)", "floor(x)", "ceil(x)", "round(x)", "sqrt(x)", "cast(x as bigint)", "cast(x as boolean)"],
    "b": ["not b", "cast(b as bigint)", "cast(b as double)", "case when b then 1 when c then 2 else 3 end"],
    "t": ["t is null", "t is not null", "t || 'x'", "t in ('a', s)"],
}
EVERY = [
    *(f"{pair[0]} {operator} {pair[1]}" for pair, operators in OF_TWO.items() for operator in operators),
    *(text.format(*pair) for pair in OF_TWO for text in OF_MORE),
    *(text for each in OF_ONE.values() for text in each),
    *("x between y and 2", "if(b, i, x)", "case i when j then 1 end", "not (x between y and i)"),
]


def _calls(kind: Kind, within: Mapping[Kind, st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    """Texts of operations of a kind, of every one of the subset, on what is `within`."""
    integers, numbers, truths, words = (within[each] for each in Kind)
    either, same = integers | numbers, within[kind]
    alike = [
        st.builds("(case when {} then {} when {} then {} end)".format, truths, same, truths, same),
        st.builds("(case when {} then {} else {} end)".format, truths, same, same),
        st.builds("if({}, {}, {})".format, truths, same, same),
        st.builds("coalesce({}, {}, null)".format, same, same),
        st.builds("nullif({}, {})".format, same, same),
        st.builds("greatest({}, {})".format, same, same),
        st.builds("least({}, null, {})".format, same, same),
    ]
    match kind:
        case Kind.INTEGER:
            own = [
                st.builds("({} {} {})".format, integers, st.sampled_from(["+", "-", "*", "//", "%"]), integers),
                st.builds("abs({})".format, integers),
                st.builds("(-({}))".format, integers),
                st.builds("cast({} as bigint)".format, numbers | truths | integers),
            ]
        case Kind.NUMBER:
            own = [
                st.builds("({} / {})".format, either, either),
                st.builds("({} {} {})".format, numbers, st.sampled_from(["+", "-", "*", "%"]), either),
                st.builds("{}({})".format, st.sampled_from(["floor", "ceil", "round", "sqrt", "abs"]), numbers),
                st.builds("cast({} as double)".format, either | truths),
            ]
        case Kind.BOOLEAN:
            comparison = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
            own = [
                st.builds("({} {} {})".format, either, comparison, either),
                st.builds("({} {} {})".format, words, comparison, words),
                st.builds("({} {} {})".format, truths, st.sampled_from(["and", "or", "="]), truths),
                st.builds("(not {})".format, truths),
                st.builds("({} is {})".format, either | words | truths, st.sampled_from(["null", "not null"])),
                st.builds("({} {} ({}, {}))".format, either, st.sampled_from(["in", "not in"]), either, either),
                st.builds("({} between {} and {})".format, either, either, either),
                st.builds("cast({} as boolean)".format, either),
            ]
        case Kind.TEXT:
            own = [st.builds("({} || {})".format, words, words)]
    return st.one_of(*own, *alike)


_LEAVES = {
    Kind.INTEGER: ["i", "j", "I", "0", "-3", "9223372036854775807", "cast(null as bigint)"],
    Kind.NUMBER: ["x", "y", "0.5", "1e308", "-0.0", "9223372036854775808", "cast(null as double)"],
    Kind.BOOLEAN: ["b", "c", "true", "false", "cast(null as boolean)"],
    Kind.TEXT: ["t", "s", "'a'", "'it''s'", "''", "nullif('a', 'a')"],
}
_TEXTS: dict[Kind, st.SearchStrategy[str]] = {kind: st.sampled_from(_LEAVES[kind]) for kind in Kind}
for _ in range(4):
    _TEXTS = {kind: st.sampled_from(_LEAVES[kind]) | _calls(kind, _TEXTS) for kind in Kind}


def bits(value: Any) -> Any:
    """A value by what it is: -0.0 is not 0.0, 1 is not true, and what is no number is itself."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack(">d", value)
    return (type(value), value)


@pytest.fixture(scope="module")
def engine() -> duckdb.DuckDBPyConnection:
    found = duckdb.connect()
    found.execute(
        f"CREATE TABLE given_rows (place int, {', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"
    )
    return found


def in_engine(engine: duckdb.DuckDBPyConnection, sql: str, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    engine.execute("DELETE FROM given_rows")
    values = [value for place, row in enumerate(rows) for value in (place, *row)]
    engine.execute(f"INSERT INTO given_rows VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?, ?)'] * len(rows))}", values)
    return engine.execute(f"SELECT {sql} FROM given_rows ORDER BY place").fetchall()


def operations(expression: Expression) -> set[str]:
    if not isinstance(expression, Call):
        return set()
    return {expression.operation}.union(*map(operations, expression.arguments))


def test_each_operation_makes_the_same_of_every_two_values(engine: duckdb.DuckDBPyConnection) -> None:
    expressions = [expression_of(text, COLUMNS) for text in EVERY]
    pairs = {kind: list(itertools.product(samples, samples)) for kind, samples in SAMPLES.items()}
    mixed = itertools.product(SAMPLES[Kind.INTEGER], SAMPLES[Kind.NUMBER])
    rows = [
        tuple(value for kind in Kind for value in pairs[kind][place % len(pairs[kind])])
        for place in range(max(map(len, pairs.values())))
    ]
    rows += [(i, None, x, None, None, None, None, None) for i, x in mixed]
    acts = [compiled(expression, list(COLUMNS)) for expression in expressions]

    found = in_engine(engine, ", ".join(sql_of(expression, quote) for expression in expressions), rows)

    for row, values in zip(rows, found, strict=True):
        for text, act, value in zip(EVERY, acts, values, strict=True):
            assert bits(act(row)) == bits(value), (text, row)
    assert set().union(*map(operations, expressions)) == set(OPERATIONS)


@given(st.data(), st.sampled_from(Kind), st.lists(ROWS, min_size=1, max_size=4))
@settings(max_examples=600 if os.environ.get("HEADRACE_TEST_MODELS") else 40, deadline=None)
def test_python_and_duckdb_make_the_same_value(
    engine: duckdb.DuckDBPyConnection, data: st.DataObject, kind: Kind, rows: list[Sequence[Any]]
) -> None:
    expression = expression_of(data.draw(_TEXTS[kind]), COLUMNS)
    act = compiled(expression, list(COLUMNS))

    assert [bits(act(row)) for row in rows] == [
        bits(found) for (found,) in in_engine(engine, sql_of(expression, quote), rows)
    ]


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("x / 60", {"x": 90.0}, 1.5),
        ("i / j", {"i": 1, "j": 0}, math.inf),
        ("i // j", {"i": -7, "j": 2}, -3),
        ("i % j", {"i": -7, "j": 0}, None),
        ("i + 1", {"i": 2**63 - 1}, None),
        ("case when b then x else 0 end", {"b": None, "x": 5.0}, 0.0),
        ("coalesce(i, 7)", {}, 7),
        ("x = x", {"x": math.nan}, True),
        ("\"T\" || 's'", {"t": "a"}, "as"),
        ("cast(x as bigint)", {"x": 2.5}, 2),
        ("round(x)", {"x": 2.5}, 3.0),
        ("i in (1, 2, null)", {"i": 3}, None),
    ],
)
def test_values_are_those_of_sql(text: str, row: dict[str, Any], value: Any) -> None:
    act = compiled(expression_of(text, COLUMNS), list(COLUMNS))
    assert bits(act([row.get(name) for name in COLUMNS])) == bits(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("random()", "the function random"),
        ("now()", "the function now"),
        ("i + 1 as k", "clause of a query"),
        ("i, j", "clause of a query"),
        ("i from t", "clause of a query"),
        ("i limit 1", "clause of a query"),
        ("(select 1)", "subquery"),
        ("sum(i) over ()", "window aggregate"),
        ("abs(distinct i)", "with clauses"),
        ("main.abs(i)", "or a schema"),
        ("t + 1", "varchar where a number"),
        ("x // 2", "the function // with 2"),
        ("i and b", "bigint where true or false"),
        ("i = t", "bigint beside varchar"),
        ("cast(t as bigint)", "a cast from varchar"),
        ("cast(i as varchar)", "a cast to varchar"),
        ("read_text('/etc/passwd')", "the function read_text"),
        ("given_rows.i", "a name with a dot"),
        ("[i]", "in the expression"),
        ("lower(t)", "the function lower"),
        ("*", "in the expression"),
        ("?", "in the expression"),
        ("i is not distinct from j", "not distinct from"),
        ("x'00'", "in the expression"),
        ("date '2024-01-01'", "a cast to date"),
    ],
)
def test_what_is_not_of_the_subset_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why) as caught:
        expression_of(text, COLUMNS)
    assert caught.value.code in ("feature.expression", "query.unparsable")


def test_what_is_not_there_is_named_and_what_is_too_deep_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'z', which is no feature") as caught:
        expression_of("i + z", COLUMNS)
    assert caught.value.code == "feature.expression_unknown"
    with pytest.raises(InvalidInputError):
        expression_of("+".join(["i"] * 60), COLUMNS)
    assert expression_of("+".join(["i"] * 40), COLUMNS).kind is Kind.INTEGER
    for text in ("", "i +", "i; drop table given_rows", "i) from (select 1"):
        with pytest.raises(PlatformError):
            expression_of(text, COLUMNS)
