"""The borders of a read's streams, worked out from the smallest and the greatest value of a column."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from domain.errors import InvalidInputError
from domain.pipelines.read_set import Stream, split, streams_between
from domain.pipelines.spec import Partitions, SourceSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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


def ranges(partitions: Partitions, kind: str, low: Any, high: Any) -> tuple[Stream, ...]:
    """Split [low, high] into half-open streams that cover everything; None when there are no values.

    Raises:
        InvalidInputError: values of this type cannot be split (`partitions.type`).
    """
    to_number: Callable[[Any], int]
    to_text: Callable[[int], str]
    if kind.startswith(("int", "uint")):
        to_number, to_text = int, str
    elif kind == "date":
        to_number, to_text = date.toordinal, lambda number: date.fromordinal(number).isoformat()
    elif kind in ("timestamp", "timestamptz"):
        to_number, to_text = _microseconds, lambda number: _moment(number, kind)
    else:
        raise InvalidInputError(
            f"The column {partitions.column} is {kind}; partitions are ranges of an integer, a date or a timestamp.",
            code="partitions.type",
        )
    if low is None or high is None:
        return streams_between(())
    borders = split(to_number(low), to_number(high), partitions.count)
    return streams_between([to_text(border) for border in borders])


def _microseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def _moment(microseconds: int, kind: str) -> str:
    text = (_EPOCH + microseconds * _MICROSECOND).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    return text + "+00:00" if kind == "timestamptz" else text
