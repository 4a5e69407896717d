"""What a store's type says about being a cursor, and the exclusive end of a read, shared by the stores."""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa

from domain.errors import InvalidInputError
from domain.pipelines.checkpoint import Position
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


def integer_end(newest: int | None, cursor: CursorSpec, kind: str, lo: str | None) -> str:
    """The exclusive end of an integer cursor: above the newest value, less what is held back, never below `lo`.

    Raises:
        InvalidInputError: the newest value is the largest of its type (`cursor.at_maximum`), or `lo` is no number of
            it (`cursor.watermark`).
    """
    least, greatest = _bounds(kind)
    begin = least if lo is None else _integer(lo, cursor, kind)
    if newest is None:
        return str(begin)
    if newest == greatest:
        raise InvalidInputError(
            f"The cursor {cursor.column} holds {greatest}, the largest {kind}: nothing can come after it, so no later row "
            "would ever be read. Leave such rows out with a query.",
            code="cursor.at_maximum",
        )
    held = cursor.hold_back if isinstance(cursor.hold_back, int) else 0
    return str(max(newest + 1 - held, begin))


def time_end(
    now: datetime, cursor: CursorSpec, kind: str, lo: str | None, *, oldest_writer: datetime | None = None
) -> str:
    """The exclusive end of a time cursor: the source's now less what is held back, or the oldest open writer's start,
    never before `lo`.

    Raises:
        InvalidInputError: `lo` is no time (`cursor.watermark`).
    """
    held = cursor.hold_back if isinstance(cursor.hold_back, timedelta) else timedelta()
    end = now.astimezone(UTC) - held
    if oldest_writer is not None:
        end = min(end, oldest_writer.astimezone(UTC))
    if lo is not None and _moment(lo, cursor, kind) > end:
        return lo
    return _written(end, kind)


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
        return str(max(_integer(lo, cursor, kind) - cursor.lookback, _bounds(kind)[0]))
    moment = _moment(lo, cursor, kind)
    begin = moment - min(cursor.lookback, moment - datetime.min.replace(tzinfo=UTC))
    return _written(begin, kind)


def _bounds(kind: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type of ours, such as `uint16`."""
    bits = int(kind.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _integer(lo: str, cursor: CursorSpec, kind: str) -> int:
    least, greatest = _bounds(kind)
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", lo) or int(lo) > greatest:
        raise _no_watermark(cursor, f"a whole number up to {greatest}")
    return max(int(lo), least)


def _moment(lo: str, cursor: CursorSpec, kind: str) -> datetime:
    try:
        found = datetime.fromisoformat(lo)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_watermark(cursor, f"a {kind} such as {_written(datetime(2026, 1, 31, tzinfo=UTC), kind)}") from None


def _no_watermark(cursor: CursorSpec, wanted: str) -> InvalidInputError:
    return InvalidInputError(
        f"The watermark of the cursor {cursor.column} is not {wanted}; set it with `pipelines reset --to`.",
        code="cursor.watermark",
    )


def _written(moment: datetime, kind: str) -> str:
    """Write a moment in UTC as a value of one of our types."""
    if kind == "date":
        return moment.date().isoformat()
    text = moment.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return text + "+00:00" if kind == "timestamptz" else text


def position_after(rows: pa.Table, order: Sequence[str]) -> Position:
    """The place behind the last row, as text that a cast in the store's SQL reads back to the same value.

    Raises:
        InvalidInputError: a key column is NULL (`key.null`), since nothing can come strictly after it.
    """
    last = rows.slice(rows.num_rows - 1)
    return tuple(_text(last.column(name)[0].as_py(), name) for name in order)


def _text(value: object, name: str) -> str:
    match value:
        case None:
            raise InvalidInputError(f"The key column {name} holds NULL; a key has none.", code="key.null")
        case datetime() | date() | time():
            return value.isoformat()
        case float():
            return repr(value)
        case bool():
            return str(value).lower()
        case bytes():
            raise InvalidInputError(f"The key column {name} is binary, which cannot be a key.", code="key.type")
        case _:
            return str(value)
