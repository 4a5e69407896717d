"""A document's own tests: rows that are given, and what is expected of them; no store takes part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SpecTest:
    """Rows as a source would give them, the rows that land and those that are kept aside; named columns are compared.

    `types` say what a column of the source is where the written values do not tell.
    """

    given: tuple[Row, ...]
    expect: tuple[Row, ...] | None = None
    quarantined: tuple[Row, ...] | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "SpecTest":
        """Build the test from its part of a checked document."""

        def rows(name: str) -> tuple[Row, ...] | None:
            return tuple(value[name]) if value.get(name) is not None else None

        return cls(
            rows("given") or (), rows("expect"), rows("quarantined"), dict(value.get("types") or {}), value.get("name")
        )

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """The columns of the source with their types, in the order in which they are first written."""
        names = dict.fromkeys(name for row in self.given for name in row)
        return tuple((name, self.types.get(name) or _type_of([row.get(name) for row in self.given])) for name in names)


def as_text(value: Any) -> str | None:
    """Write a given value as a text source would give it."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def differences(expected: Sequence[Row], found: Sequence[Row], what: str) -> list[str]:
    """Compare rows as multisets over the named columns of each expected one; name what is missing and what
    is too much.
    """
    left = list(found)
    problems = []
    for row in expected:
        match = next((other for other in left if _matches(row, other)), None)
        if match is None:
            problems.append(f"{what}: there is no row {_shown(row)}")
        else:
            left.remove(match)
    problems += [f"{what}: the row {_shown(row)} was not expected" for row in left]
    return problems


def _matches(expected: Row, found: Row) -> bool:
    return all(name in found and _same(value, found[name]) for name, value in expected.items())


def _same(expected: Any, found: Any) -> bool:
    if expected is None or found is None or isinstance(expected, bool) or isinstance(found, bool):
        return expected is found or as_text(expected) == as_text(found)
    if isinstance(found, int | float | Decimal):
        try:
            return Decimal(str(expected)) == Decimal(str(found))
        except InvalidOperation:
            return False
    return str(expected) == str(found)


def _type_of(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "float64" if kinds and kinds <= {int, float} else "string"


def _shown(row: Row) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in row.items()) + "}"
