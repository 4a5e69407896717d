"""SQL that compares whole numbers and decimals with a number of a document exactly: by the next one that
the type has; and what a document's number is as a real.
"""

import struct
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from infrastructure.tabular.exact import INTEGERS
from infrastructure.tabular.nested_types import digits_of, is_text_on_the_way

# More digits than a type has, and than a document may hold.
_CONTEXT = Context(prec=300, Emin=-(10**12), Emax=10**12)


def is_counted(kind: str) -> bool:
    """Whether the values of a type are whole multiples of a power of ten."""
    return kind in INTEGERS or (kind.startswith("decimal(") and not is_text_on_the_way(kind))


def outside(column: str, side: str, value: str, kind: str, bind: Callable[[str], str]) -> str:
    """SQL that is true below the least (`min`) or above the greatest value (`max`), which is a number in text.

    NaN and infinity stand above all numbers, -Infinity below. DuckDB by itself would compare as DOUBLE, or round the
    bound.
    """
    least, greatest, scale = _limits(kind)
    number = Decimal(value)
    if number.is_nan() or number > greatest:
        return f"{column} IS NOT NULL" if side == "min" else "false"
    if number < least:
        return "false" if side == "min" else f"{column} IS NOT NULL"
    step = number.quantize(Decimal(1).scaleb(-scale), ROUND_CEILING if side == "min" else ROUND_FLOOR, _CONTEXT)
    return f"{column} {'<' if side == 'min' else '>'} {bind(f'{step:f}')}"


def equals(values: Sequence[str], kind: str) -> list[str]:
    """The numbers in text that values of a type may equal, as the type has them."""
    least, greatest, scale = _limits(kind)
    found = []
    for value in values:
        wanted = Decimal(value)
        if not wanted.is_finite() or not least <= wanted <= greatest:
            continue
        nearest = wanted.quantize(Decimal(1).scaleb(-scale), ROUND_FLOOR, _CONTEXT)
        if nearest == wanted:
            found.append(f"{nearest:f}")
    return found


def nearest_real(number: float) -> float:
    """A number as the nearest one that the type real has: 0.1 in a document is what a real column holds of 0.1."""
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return number


def _limits(kind: str) -> tuple[Decimal, Decimal, int]:
    if kind.startswith("decimal("):
        digits, scale = digits_of(kind)
        greatest = Decimal(10**digits - 1).scaleb(-scale, _CONTEXT)
        return -greatest, greatest, scale
    bits = int(kind.removeprefix("u").removeprefix("int"))
    if kind.startswith("u"):
        return Decimal(0), Decimal(2**bits - 1), 0
    return Decimal(-(2 ** (bits - 1))), Decimal(2 ** (bits - 1) - 1), 0
