"""The borders of a read's streams, worked out from the smallest and the greatest value of a column."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta

from domain.errors import InvalidInputError
from domain.loads.read_set import Stream, split, streams_between
from domain.pipelines.spec import Partitions, SourceSpec

_INTEGER = re.compile("u?int(8|16|32|64)")
_MOMENTS = ("timestamp", "timestamptz")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LATEST = datetime.max.replace(tzinfo=UTC) - _EPOCH


def is_partitioned(source: SourceSpec, limit: int | None) -> bool:
    """Say whether a read is split. A bounded read without a cursor is not, as its bound is over the whole.

    Raises:
        InvalidInputError: the streams would have no order to resume in (`partitions.key_missing`).
    """
    if source.partitions is None or (limit is not None and source.cursor is None):
        return False
    if not source.order:
        raise InvalidInputError(
            "Partitions need a key: without one a stream has no place to go on from.", code="partitions.key_missing"
        )
    return True


def check_column(partitions: Partitions, kinds: Mapping[str, str]) -> str:
    """Return the type of the column, which not every engine could even compare if it cannot be split.

    Raises:
        InvalidInputError: there is no such column (`source.column_missing`), or its type cannot be split
        (`partitions.type`).
    """
    kind = kinds.get(partitions.column)
    if kind is None:
        raise InvalidInputError(f"The source has no column {partitions.column}.", code="source.column_missing")
    if _INTEGER.fullmatch(kind) is None and kind not in ("date", *_MOMENTS):
        raise InvalidInputError(
            f"The column {partitions.column} is {kind}; partitions are ranges of an integer, a date or a timestamp.",
            code="partitions.type",
        )
    return kind


def ranges(partitions: Partitions, kind: str, low: str | None, high: str | None) -> tuple[Stream, ...]:
    """Split [low, high], told as text, into half-open streams that cover everything; one when there are no values.

    Times beyond the years 1 to 9999, such as infinity, are in the first or the last stream, which no border needs to
    count to.
    """
    if low is None or high is None:
        return streams_between(())
    to_number: Callable[[str], int] = int
    to_text: Callable[[int], str] = str
    if kind == "date":
        to_number, to_text = _days, lambda number: date.fromordinal(number).isoformat()
    elif kind in _MOMENTS:
        to_number, to_text = _microseconds, lambda number: _moment(number, kind)
    borders = split(to_number(low), to_number(high), partitions.count)
    return streams_between([to_text(border) for border in borders])


def _days(text: str) -> int:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return (date.min if _is_before_christ(text) else date.max).toordinal()


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return (_EARLIEST if _is_before_christ(text) else _LATEST) // _MICROSECOND
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _is_before_christ(text: str) -> bool:
    return "BC" in text or text.removeprefix("<value out of range: ").startswith("-")


def _moment(microseconds: int, kind: str) -> str:
    text = (_EPOCH + microseconds * _MICROSECOND).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return text + "+00:00" if kind == "timestamptz" else text
