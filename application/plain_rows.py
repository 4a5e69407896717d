"""Rows of a batch as Python has them, and as text what Python has not."""

from typing import Any

from domain.far_times import clock_text, day_text, moment_text

_FAR = {"date32[day": day_text, "time64[us": clock_text, "timestamp[us": moment_text}
_NOT_SHOWN = "… (a value that cannot be shown)"


def rows_of(batch: Any) -> list[dict[str, Any]]:
    """The rows, each as values by name."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except (OverflowError, ValueError):  # A time in the year 10000, a struct with one name twice.
        columns = [list(map(_value, column)) for column in batch.columns]
        return [dict(zip(batch.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
    return found


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        kind, _, zone = str(scalar.type).partition(", tz=")
        write = _FAR.get(kind.rstrip("]"))
        return write(scalar.value) + ("+00:00" if zone else "") if write is not None else _NOT_SHOWN
