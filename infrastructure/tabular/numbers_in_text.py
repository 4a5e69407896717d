"""Numbers that travel as text, since neither Arrow nor DuckDB can count that far: compared in SQL by value, exactly.

Postgres' `numeric` and decimals of more than 38 digits are written plainly: a sign, digits, places. NaN and Infinity
are ordered as Postgres orders them, NaN above all.
"""

import re
from collections.abc import Sequence
from decimal import Decimal

from infrastructure.tabular.nested_types import digits_of, is_text_on_the_way

_NUMERIC = re.compile(r"native:numeric(\(([0-9]+),(-?[0-9]+)\))?")
_ZERO = r"-?0+(\.0*)?"
_MOST = 1000
_UNWRITTEN = 1000
"""Digits that an exponent may stand for: a rule of a hundred bytes could ask for gigabytes of zeros."""


def is_number_in_text(logical: str) -> bool:
    """Whether a type is a number that travels as text."""
    return bool(_NUMERIC.fullmatch(logical)) or (logical.startswith("decimal(") and is_text_on_the_way(logical))


def digits_allowed(logical: str) -> str | None:
    """The pattern of texts that such a type takes without rounding; None where it takes every number."""
    match = _NUMERIC.fullmatch(logical)
    if match and match[1] is None:
        return None
    precision, scale = (int(match[2]), int(match[3])) if match else digits_of(logical)
    if scale < 0:
        return rf"-?0*[0-9]{{0,{min(precision, _MOST)}}}0{{{min(-scale, _MOST)}}}(\.0*)?|{_ZERO}"
    empty = max(scale - precision, 0)  # Zeros that have to stand behind the point.
    whole, places = min(precision - scale + empty, _MOST), min(scale - empty, _MOST)
    return rf"-?0*[0-9]{{0,{whole}}}(\.0{{{empty}}}[0-9]{{0,{places}}}0*)?|{_ZERO}"


def has_few_digits(text: str, count: int) -> str:
    """SQL that is true where a number has at most so many digits, zeros before them aside."""
    return f"length(ltrim(replace(ltrim({text}, '-'), '.', ''), '0')) <= {count}"


def is_zero(text: str) -> str:
    """SQL that is true where a number is zero."""
    return f"regexp_full_match({text}, '{_ZERO}')"


def same_number(left: str, right: str) -> str:
    """SQL that is true where two texts are one number."""
    return f"{_shortest(left)} = {_shortest(right)}"


def spelled(value: object) -> str:
    """The shortest plain text of a number of a document.

    Raises:
        ValueError: it is none, or its exponent stands for too many digits.
    """
    written = str(value).strip()
    try:
        number = Decimal(written)
    except ArithmeticError:
        raise ValueError(f"{value} is no number") from None
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and max(exponent, -number.adjusted()) > _UNWRITTEN + len(written):
        raise ValueError(f"{value} stands for more than {_UNWRITTEN:,} digits that are not written")
    if not number.is_finite():
        return "NaN" if number.is_nan() else "Infinity" if number > 0 else "-Infinity"
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def is_one_of(column: str, values: Sequence[str]) -> str:
    """SQL that is true where a number in text equals one of the values, which `spelled` has written."""
    return f"{_shortest(column)} IN ({', '.join(values)})"


def is_below(column: str, bound: str, value: str) -> str:
    """SQL that is true where a number in text is less than a value of `spelled`; `bound` stands for it in the
    statement.
    """
    if value in ("-Infinity", "Infinity", "NaN"):
        return f"({column} IS NOT NULL AND {_rank(column)} < {_rank(bound)})"
    is_negative = f"starts_with({column}, '-')"
    if value.startswith("-"):
        is_less = f"{is_negative} AND {_size(column)} > {_size(bound)}"
    else:
        is_less = (
            f"CASE WHEN {is_negative} THEN NOT ({is_zero(column)} AND {bound} = '0') ELSE {_size(column)} < "
            f"{_size(bound)} END"
        )
    return (
        f"CASE {column} WHEN 'NaN' THEN false WHEN 'Infinity' THEN false WHEN '-Infinity' THEN true ELSE {is_less} END"
    )


def is_above(column: str, bound: str, value: str) -> str:
    """SQL that is true where a number in text is greater than a value of `spelled`."""
    return f"(NOT ({is_below(column, bound, value)}) AND {_shortest(column)} <> {bound})"


def _rank(text: str) -> str:
    return f"CASE {text} WHEN '-Infinity' THEN -1 WHEN 'Infinity' THEN 1 WHEN 'NaN' THEN 2 ELSE 0 END"


def _shortest(text: str) -> str:
    """Without places that say nothing."""
    plain = (
        f"CASE WHEN contains({text}, '.') AND NOT contains({text}, 'e') THEN rtrim(rtrim({text}, '0'), '.') ELSE "
        f"{text} END"
    )
    return f"regexp_replace({plain}, '^-0*$', '0')"


def _size(text: str) -> str:
    """What two numbers without their signs are compared by: how many digits before the point, these, and those after
    it.
    """
    whole = f"ltrim(ltrim(split_part({text}, '.', 1), '-'), '0')"
    return f"(length({whole}), {whole}, rtrim(split_part({text}, '.', 2), '0'))"
