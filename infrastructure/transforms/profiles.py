"""Measures the profile of a column in one batch: in the engine that judges it, by aggregates that add up."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from domain.errors import InvalidInputError
from domain.quality.profile import GAMMA, KEPT_TOP, REGISTER_BITS, Profile
from domain.quality.rules import Rule

_VIEW = "_headrace_profiled"
_NUMBERS = ("int", "uint", "float", "decimal(")
_TEXTS = ("string", "bool", "uuid")
_LONGEST_VALUE = 100
_REST_BITS = 64 - REGISTER_BITS


def profiled_columns(rules: Sequence[Rule]) -> list[str]:
    """The columns whose distribution is watched."""
    return [rule.column for rule in rules if rule.kind == "distribution" and rule.column]


def check_profiled(rule: Rule, kind: str) -> None:
    """Refuse to watch what has no distribution.

    Raises:
        InvalidInputError: neither numbers, texts nor booleans (`quality.type`).
    """
    if not kind.startswith(_NUMBERS) and kind not in _TEXTS:
        raise InvalidInputError(
            f"The rule {rule.label} needs numbers, texts or booleans; for times there is the rule freshness.",
            code="quality.type",
        )


def profiles(connection: duckdb.DuckDBPyConnection, rows: pa.Table, columns: Sequence[str]) -> dict[str, Profile]:
    """Profile columns of a batch; blocking."""
    found: dict[str, Profile] = {}
    for name in columns:
        column = rows.column(name)
        connection.register(_VIEW, pa.table({"v": column}))
        try:
            found[name] = _profile(connection, is_number=_is_number(column.type))
        finally:
            connection.unregister(_VIEW)
    return found


def _profile(connection: duckdb.DuckDBPyConnection, *, is_number: bool) -> Profile:
    def rows(sql: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        return found

    count, nulls = rows(f"SELECT count(v), count(*) - count(v) FROM {_VIEW}")[0]
    profile = Profile(count, nulls)
    if not count:
        return profile
    if is_number:
        finite = f"SELECT CAST(v AS DOUBLE) AS v FROM {_VIEW} WHERE isfinite(CAST(v AS DOUBLE))"
        least, greatest, total = rows(f"SELECT min(v), max(v), fsum(v) FROM ({finite})")[0]
        place = f"CAST(ceil(ln(abs(v)) / ln({GAMMA!r})) AS BIGINT)"
        bucket = f"CASE WHEN v = 0 THEN 'z' WHEN v > 0 THEN 'p' || {place} ELSE 'n' || {place} END"
        buckets = dict(rows(f"SELECT {bucket}, count(*) FROM ({finite}) GROUP BY 1 ORDER BY 1"))
        profile = replace(profile, min=least, max=greatest, sum=total or 0.0, buckets=buckets)
    registers = bytearray(2**REGISTER_BITS)
    rest = f"(h & {2**_REST_BITS - 1}::UBIGINT)"
    rank = f"CASE WHEN {rest} = 0 THEN {_REST_BITS + 1} ELSE {_REST_BITS} - CAST(floor(log2({rest})) AS INTEGER) END"
    hashes = f"SELECT hash(v) AS h FROM {_VIEW} WHERE v IS NOT NULL"
    for place, highest in rows(f"SELECT h >> {_REST_BITS}, max({rank}) FROM ({hashes}) GROUP BY 1"):
        registers[place] = max(0, min(highest, 255))
    text = f"left(CAST(v AS VARCHAR), {_LONGEST_VALUE})"
    top = rows(
        f"SELECT {text}, count(*) FROM {_VIEW} WHERE v IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {KEPT_TOP}"
    )
    return replace(profile, registers=base64.b64encode(registers).decode(), top=dict(top))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
