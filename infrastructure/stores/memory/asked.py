"""What a source in memory answers to whoever plans a read of it, and which of its rows a plan means."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import Column
from infrastructure.stores.cursor_axis import ENDLESS, Axis
from infrastructure.stores.memory.places import check_ordered
from infrastructure.stores.positions import MAX_TIES, untrusted_null, untrusted_ties


class InMemoryAsked:
    """The rows of a source as they are now."""

    def __init__(self, source: SourceSpec, rows: pa.Table, columns: tuple[Column, ...]) -> None:
        self._source = source
        self._rows = rows
        self.columns = columns

    def check_cursor(self, name: str) -> None:
        """Its greatest value has been asked for, and NULL refused with that."""

    def limited(self, cursor: Column, lo: str | None, hi: str, limit: int) -> str:
        ordered = between(self._rows, self._source, lo, hi).sort_by(cursor.name).column(cursor.name)
        return str(pc.cast(ordered.slice(limit, 1), pa.string())[0]) if limit < len(ordered) else hi

    def is_proved(self) -> bool:
        return False

    def why_untrusted(self, lo: str | None, hi: str | None, *, looks_for_ties: bool) -> str | None:
        source, rows = self._source, between(self._rows, self._source, lo, hi)
        check_ordered(source.order, {field.name: field.type for field in rows.schema})
        has_null = any(rows.column(name).null_count for name in source.order)
        if has_null or not source.order or not looks_for_ties or rows.num_rows <= MAX_TIES:
            return untrusted_null(source.key) if has_null else None
        shared = rows.group_by(list(source.order)).aggregate([([], "count_all")]).column("count_all")
        return untrusted_ties(source.key) if pc.max(shared).as_py() > MAX_TIES else None

    def extremes(self, column: Column, lo: str | None, hi: str | None) -> tuple[str | None, str | None]:
        found = pc.min_max(between(self._rows, self._source, lo, hi).column(column.name))
        low, high = (pc.cast(found[end], pa.string()).as_py() for end in ("min", "max"))
        return low, high

    def warnings(self) -> tuple[str, ...]:
        return ()


def greatest_of(cursor: CursorSpec, columns: tuple[Column, ...], rows: pa.Table) -> tuple[Axis, int | None]:
    """The axis of a cursor and the greatest value on it.

    Raises:
        InvalidInputError: no such column, one that cannot be a cursor, or NULL in it (`cursor.null`).
    """
    kind = next((column.type for column in columns if column.name == cursor.column), None)
    if kind is None:
        raise InvalidInputError(f"The source has no column {cursor.column}.", code="source.column_missing")
    axis = Axis.of(cursor, kind)
    values = rows.column(cursor.column)
    if values.null_count:
        raise InvalidInputError(f"The cursor column {cursor.column} holds NULL.", code="cursor.null")
    if axis.is_integer:
        return axis, pc.max(values).as_py()
    found = pc.min_max(values)
    return axis, axis.reachable(_moment(found["min"]), _moment(found["max"]))


def _moment(value: pa.Scalar) -> int | None:
    """A time in microseconds since 1970, also where Python has none."""
    if not value.is_valid:
        return None
    is_day = pa.types.is_date32(value.type)
    number = value.value if is_day else value.cast(pa.timestamp("us", getattr(value.type, "tz", None))).value
    if abs(number) == (2**31 if is_day else 2**63) - 1:
        return ENDLESS if number > 0 else -ENDLESS
    return int(number * 86_400_000_000 if is_day else number)


def between(rows: pa.Table, source: SourceSpec, lo: str | None, hi: str | None) -> pa.Table:
    """The rows from one bound of the cursor to another."""
    if source.cursor is None:
        return rows
    values = rows.column(source.cursor.column)
    if lo is not None:
        rows = rows.filter(pc.greater_equal(values, _scalar(lo, values.type)))
        values = rows.column(source.cursor.column)
    if hi is not None:
        rows = rows.filter(pc.less(values, _scalar(hi, values.type)))
    return rows


def within(rows: pa.Table, plan: SourcePlan, stream: Stream) -> pa.Table:
    """The rows of a stream."""
    if plan.partition is None:
        return rows
    values = rows.column(plan.partition)
    if stream.upper is not None:
        below = pc.less(values, _scalar(stream.upper, values.type))
        rows = rows.filter(pc.fill_null(below, stream.lower is None))
        values = rows.column(plan.partition)
    if stream.lower is not None:
        rows = rows.filter(pc.greater_equal(values, _scalar(stream.lower, values.type)))
    return rows


def _scalar(text: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_timestamp(kind):
        moment = datetime.fromisoformat(text)
        if kind.tz and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return pa.scalar(moment, kind)
    return pc.cast(pa.scalar(text), kind)
