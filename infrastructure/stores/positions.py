"""Where a resumed read goes on: the text of a value, which its store reads back to the same value, and ties kept
together.
"""

import re
from collections.abc import Callable, Generator, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import ConflictError, InvalidInputError, WorkFailedError
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan

MAX_TIES = 10_000
"""How many rows of one place a batch may be made larger by; if more share one, the read is staged."""
TIES = "_headrace_ties"
"""A column beside the rows: the same number for all that the store holds equal in its order, another for
the next ones.
"""
_PLACE = "_headrace_place_"
_OF_ARROW = frozenset({"bool", "string", "uuid", "json", "date", "time", "timestamp", "timestamptz"})
_DAY = 86_400_000_000
_SECOND = 1_000_000
_ENDLESS = {2**31 - 1: "infinity", -(2**31) + 1: "-infinity", 2**63 - 1: "infinity", -(2**63) + 1: "-infinity"}


def told_as_text(order: Sequence[str], is_plain: Callable[[str], bool]) -> dict[str, str]:
    """The columns of an order whose text the store has to write, by the names of additional columns that take it.

    Of plain ones the text follows from the value that Arrow carries, whatever Python could make of it.
    """
    return {f"{_PLACE}{number}": name for number, name in enumerate(order) if not is_plain(name)}


def is_plain(kind: str) -> bool:
    """Whether the text of a type's values follows from what Arrow carries."""
    return kind in _OF_ARROW or bool(re.match(r"u?int[0-9]|decimal\(", kind))


def place_after(rows: pa.Table, plan: SourcePlan, *, before_christ: str) -> Position:
    """The place behind the last row. `before_christ` is how the store marks such years, behind the date if it begins
    with a bracket, else behind all.

    Raises:
        InvalidInputError: a key column holds NULL (`key.null`), since nothing can come strictly after it.
    """
    place, kinds = [], dict(plan.columns)
    for number, name in enumerate(plan.order):
        if rows.column(name).null_count:
            raise key_null(name)
        told = f"{_PLACE}{number}"
        last = rows.column(told if told in rows.column_names else name)[rows.num_rows - 1]
        place.append(_text(last, "string" if told in rows.column_names else kinds[name], before_christ))
    return tuple(place)


def key_null(name: str) -> InvalidInputError:
    """Say that a key has a NULL that was not there when the read was planned."""
    return InvalidInputError(
        f"The key column {name} holds NULL, which it did not when the run was planned; a key has none. Give the "
        "column a value, or leave it out of the key, and run again with --full-refresh.",
        code="key.null",
    )


def key_type(name: str, native: str) -> InvalidInputError:
    """Say that values of a type have no place in an order that a read could go on from."""
    return InvalidInputError(
        f"The key column {name} is {native}, which has no order that a read could go on in; name other columns in "
        "source.key, or none.",
        code="key.type",
    )


def untrusted_null(names: Sequence[str]) -> str:
    """Why a key is no place to go on from."""
    return f"the key ({', '.join(names)}) holds NULL, so a resumed run has to start its staging again"


def untrusted_ties(names: Sequence[str]) -> str:
    """Why a key is no place to go on from."""
    return (
        f"more than {MAX_TIES:,} rows share one key ({', '.join(names)}), so a resumed run has to start its staging "
        "again"
    )


def place_unclear() -> ConflictError:
    """Say that a place of an earlier version may be between rows that share it, of which some have landed."""
    return ConflictError(
        "An earlier version of Headrace has left this load at a place where not exactly one row stands, so it cannot "
        "be told which rows have landed: run with --full-refresh to replace the table, or with --abandon to start "
        "again beside the rows that are there.",
        code="run.place_unclear",
    )


def is_understood(plan: SourcePlan, place: Position) -> bool:
    """Whether a place of an earlier version says which value it was written of: some times of day and
    intervals do not.
    """
    kinds = dict(plan.columns)
    return not any(
        (kinds[name] == "time" and text == "00:00:00") or kinds[name] == "interval"
        for name, text in zip(plan.order, place, strict=True)
    )


def ties_too_large(limit: int, order: Sequence[str]) -> WorkFailedError:
    """Say that rows which share their key have more bytes than a batch may have."""
    return WorkFailedError(
        f"Rows of the source that share one key ({', '.join(order)}) are larger together than a batch may be "
        f"({limit:,} bytes): raise run.batch_bytes, which may be 1GiB, above the largest such group, or name columns "
        "in source.key that tell these rows apart. What is committed stays, and a run that is asked for again goes "
        "on after it.",
        code="key.ties",
    )


def whole_ties(tables: Iterator[pa.Table], order: Sequence[str], size_bytes: int | None = None) -> Generator[pa.Table]:
    """Cut tables so that none ends between rows that the store holds equal: their last group moves to the next table.
    `order` is what they share.

    Raises:
        WorkFailedError: such a group is larger than `size_bytes` (`key.ties`).
    """
    waiting: pa.Table | None = None
    for table in tables:
        if waiting is None:
            waiting = table
            continue
        ties = waiting.column(TIES)
        last = ties[len(ties) - 1]
        if not last.equals(table.column(TIES)[0]):
            yield waiting
            waiting = table
            continue
        begin = pc.index(ties, last).as_py()
        if begin:
            yield waiting.slice(0, begin)
        waiting = pa.concat_tables([waiting.slice(begin), table])
        if size_bytes is not None and _is_one_group(waiting) and waiting.nbytes > size_bytes:
            raise ties_too_large(size_bytes, order)
    if waiting is not None:
        yield waiting


def _is_one_group(table: pa.Table) -> bool:
    ties = table.column(TIES)
    return bool(ties[0].equals(ties[len(ties) - 1]))


def _text(value: pa.Scalar, kind: str, before_christ: str) -> str:
    match kind:
        case "date":
            return _ENDLESS.get(value.value) or _dated(value.value, "", before_christ)
        case "timestamp" | "timestamptz":
            days, microseconds = divmod(value.value, _DAY)
            zone = "+00" if kind == "timestamptz" else ""
            return _ENDLESS.get(value.value) or _dated(days, f" {_clock(microseconds)}{zone}", before_christ)
        case "time":
            return _clock(value.value)
        case "bool":
            return "true" if value.as_py() else "false"
        case _ if pa.types.is_decimal(value.type):
            return format(value.as_py(), "f")
        case _:
            return str(value.as_py())


def _clock(microseconds: int) -> str:
    """Write a time of day, whose last is 24:00:00."""
    seconds, fraction = divmod(microseconds, _SECOND)
    written = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{written}.{fraction:06}".rstrip("0") if fraction else written


def _dated(days: int, rest: str, before_christ: str) -> str:
    """Write a day since 1970 of the calendar that has always been as it is now, in any year."""
    shifted = days + 719_468
    cycle, day = divmod(shifted, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153  # From March on, so that the leap day is the last one.
    day -= (153 * month + 2) // 5 - 1
    month = month + 3 if month < 10 else month - 9
    year += cycle * 400 + (month <= 2)
    if year > 0:
        return f"{year:04}-{month:02}-{day:02}{rest}"
    written = f"{1 - year:04}-{month:02}-{day:02}"
    return f"{written} {before_christ}{rest}" if before_christ.startswith("(") else f"{written}{rest} {before_christ}"
