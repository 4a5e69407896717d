"""What a store's type says about being a cursor, and the exclusive end of a read, shared by the stores."""

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


def integer_end(newest: int | None, cursor: CursorSpec, lo: str | None) -> str:
    """The exclusive end of an integer cursor: above the newest value, less what is held back, never below `lo`."""
    if newest is None:
        return lo if lo is not None else str(-(2**63))
    held = cursor.hold_back if isinstance(cursor.hold_back, int) else 0
    end = newest + 1 - held
    return str(max(end, int(lo)) if lo is not None else end)


def time_end(now: datetime, cursor: CursorSpec, kind: str, *, oldest_writer: datetime | None = None) -> str:
    """The exclusive end of a time cursor: the source's now less what is held back, or the oldest open writer's start."""
    held = cursor.hold_back if isinstance(cursor.hold_back, timedelta) else timedelta()
    end = now.astimezone(UTC) - held
    if oldest_writer is not None:
        end = min(end, oldest_writer.astimezone(UTC))
    if kind == "date":
        return end.date().isoformat()
    text = end.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return text + "+00:00" if kind == "timestamptz" else text


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
        return str(int(lo) - cursor.lookback)
    begin = datetime.fromisoformat(lo) - cursor.lookback
    return begin.date().isoformat() if kind == "date" else begin.isoformat(sep=" ")


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
