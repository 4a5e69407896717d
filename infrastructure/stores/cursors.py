"""What a store's type says about being a cursor, where a read begins, and positions as text; shared by the stores."""

import re
from datetime import UTC, datetime, timedelta

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec

_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
_TIMES = frozenset({"timestamp", "timestamptz", "date"})


def is_integer_cursor(cursor: CursorSpec, kind: str) -> bool:
    """Say whether the cursor counts in integers rather than time.

    Raises:
        InvalidInputError: the type cannot be a cursor, or `hold_back` is in the wrong unit.
    """
    if kind in _INTEGERS:
        if isinstance(cursor.hold_back, timedelta):
            raise InvalidInputError(
                f"The cursor {cursor.column} is an integer, so hold_back is a number in its units.",
                code="cursor.hold_back",
            )
        return True
    if kind not in _TIMES:
        raise InvalidInputError(
            f"The cursor {cursor.column} is {kind}; a cursor is an integer, a date or a timestamp.", code="cursor.type"
        )
    if isinstance(cursor.hold_back, int):
        raise InvalidInputError(
            f"The cursor {cursor.column} is a time, so hold_back is a duration such as 5m.", code="cursor.hold_back"
        )
    return False


def looked_back(lo: str | None, cursor: CursorSpec | None, kind: str) -> str | None:
    """Where a read begins that takes some of what was read before once more.

    Raises:
        InvalidInputError: `lookback` is in the wrong unit (`cursor.lookback`).
    """
    if cursor is None or cursor.lookback is None:
        return lo
    is_integer = kind in _INTEGERS
    if isinstance(cursor.lookback, int) is not is_integer:
        unit = "a number in its units" if is_integer else "a duration such as 1h"
        raise InvalidInputError(f"The cursor {cursor.column} is {kind}, so lookback is {unit}.", code="cursor.lookback")
    if lo is None:
        return None
    if isinstance(cursor.lookback, int):
        return str(max(integer_of(lo, cursor, kind) - cursor.lookback, integer_bounds(kind)[0]))
    moment = moment_of(lo, cursor, kind)
    begin = moment - min(cursor.lookback, moment - datetime.min.replace(tzinfo=UTC))
    return written(begin, kind)


def integer_bounds(kind: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type of ours, such as `uint16`."""
    bits = int(kind.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def integer_of(lo: str, cursor: CursorSpec, kind: str) -> int:
    """Read a watermark of an integer cursor.

    Raises:
        InvalidInputError: it is no number of the type (`cursor.watermark`).
    """
    least, greatest = integer_bounds(kind)
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", lo) or int(lo) > greatest:
        raise _no_watermark(cursor, f"a whole number up to {greatest}")
    return max(int(lo), least)


def moment_of(lo: str, cursor: CursorSpec, kind: str) -> datetime:
    """Read a watermark of a time cursor, without a zone as if in UTC.

    Raises:
        InvalidInputError: it is no time (`cursor.watermark`).
    """
    try:
        found = datetime.fromisoformat(lo)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_watermark(cursor, f"a {kind} such as {written(datetime(2026, 1, 31, tzinfo=UTC), kind)}") from None


def _no_watermark(cursor: CursorSpec, wanted: str) -> InvalidInputError:
    return InvalidInputError(
        f"The watermark of the cursor {cursor.column} is not {wanted}; set it with `pipelines reset --to`.",
        code="cursor.watermark",
    )


def written(moment: datetime, kind: str) -> str:
    """Write a moment in UTC as a value of one of our types."""
    if kind == "date":
        return moment.date().isoformat()
    text = moment.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return text + "+00:00" if kind == "timestamptz" else text
