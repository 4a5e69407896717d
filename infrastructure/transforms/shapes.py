"""What a value looks like, told without the value: enough to see why it does not convert, too little to know it."""

import re
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

_NAMED = {
    ",": "a comma",
    ".": "a point",
    "-": "a hyphen",
    "+": "a plus",
    "/": "a slash",
    ":": "a colon",
    "%": "a percent sign",
    "'": "an apostrophe",
    "_": "an underscore",
    "(": "a bracket",
    ")": "a bracket",
    "\0": "a NUL",
    "\ufeff": "a byte order mark",
}
_NUMBER = (int, float, Decimal)


def shape(value: Any) -> str:
    """Describe a value by its kind, length and kinds of characters."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, _NUMBER):
        return _of_number(value)
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, datetime):
        return "a timestamp with a zone" if value.tzinfo is not None else "a timestamp"
    kinds: tuple[tuple[type, str], ...] = ((date, "a date"), (time, "a time"), (list, "a list"), (dict, "a struct"))
    return next((name for kind, name in kinds if isinstance(value, kind)), f"a {type(value).__name__}")


def shape_of_scalar(value: pa.Scalar) -> str:
    """As `shape`, of a value in Arrow: Python has no times before the year 1 or after 9999, also inside of others."""
    if not value.is_valid:
        return "NULL"
    kind, types = value.type, pa.types
    if types.is_timestamp(kind):
        return "a timestamp with a zone" if kind.tz is not None else "a timestamp"
    names = (
        (types.is_date, "a date"),
        (types.is_time, "a time"),
        (types.is_duration, "a duration"),
        (types.is_interval, "an interval"),
        (types.is_struct, "a struct"),
        (types.is_nested, "a list"),
    )
    return next((name for is_kind, name in names if is_kind(kind)), None) or shape(value.as_py())


def _of_number(value: int | float | Decimal) -> str:
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    whole, _, fraction = re.sub(r"[^0-9.]", "", text).partition(".")
    if not whole:
        return "a number that is none" if "nan" in text.lower() else "an infinite number"
    behind = f" and {len(fraction)} behind the point" if fraction else ""
    return f"a number of {len(whole)} digits{behind}"


def _of_text(value: str) -> str:
    if not value:
        return "an empty text"
    found = []
    for name, pattern in (("digits", r"[0-9]"), ("letters", r"[^\W\d_]"), ("other digits", r"[^\D0-9]")):
        if re.search(pattern, value):
            found.append(name)
    if value != value.strip():
        found.append("space around it")
    if re.search(r"\s", value.strip()):
        found.append("space in it")
    rest = dict.fromkeys(_NAMED.get(mark, "other characters") for mark in re.sub(r"[\w\s]|_", "", value))
    if "_" in value:
        rest["an underscore"] = None
    found += rest
    told = found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
    return f"text of {len(value)} character{'s' if len(value) > 1 else ''}: {told}"
