"""Numbers of documents as they were written: the bounds of a rule keep digits that a float has no room for."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


class LongNumber(float):
    """A float that remembers its text, as it is not the number that was written."""

    text: str


def number_of(text: str) -> float:
    """Read a number with a point or an exponent."""
    found = float(text)
    if not math.isfinite(found) or _is_written(found, text):
        return found
    long = LongNumber(found)
    long.text = text
    return long


def _is_written(found: float, text: str) -> bool:
    try:
        return Decimal(text) == Decimal(repr(found))
    except ArithmeticError:  # Its exponent is longer than any that can be counted with.
        return False


def with_digits(rule: Any) -> Any:
    """Give what a rule compares values with as text where a number would lose digits."""
    if not isinstance(rule, Mapping) or rule.get("rule") not in ("between", "accepted_values"):
        return rule
    kept = {name: _kept(rule[name]) for name in ("min", "max") if name in rule}
    if isinstance(rule.get("values"), list):
        kept["values"] = [_kept(value) for value in rule["values"]]
    return {**rule, **kept}


def _kept(value: Any) -> Any:
    if isinstance(value, LongNumber):
        return value.text
    is_long = isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63
    return str(value) if is_long else value
