"""Places in the order of an in-memory table: their text and back, what comes after one, and which rows share one."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.loads.checkpoint import Position
from infrastructure.stores.positions import TIES, key_null, key_type


def check_ordered(order: Sequence[str], types: Mapping[str, pa.DataType]) -> None:
    """Refuse types that cannot be sorted.

    Raises:
        InvalidInputError: a column is of such a type (`key.type`).
    """
    for name in order:
        if pa.types.is_nested(types[name]) or pa.types.is_interval(types[name]):
            raise key_type(name, str(types[name]))


def place_after(rows: pa.Table, order: Sequence[str]) -> Position:
    """The place behind the last row: numbers for what Arrow keeps as one, else the text itself.

    Raises:
        InvalidInputError: a key column holds NULL (`key.null`).
    """
    for name in order:
        if rows.column(name).null_count:
            raise key_null(name)
    return tuple(_text(rows.column(name)[rows.num_rows - 1]) for name in order)


def strictly_after(rows: pa.Table, order: Sequence[str], after: Position) -> pa.ChunkedArray:
    """(a, b) > (x, y), as SQL compares rows."""
    result = None
    for name, text in reversed(list(zip(order, after, strict=True))):
        values = rows.column(name)
        bound = _value(text, values.type)
        greater = _greater(values, bound)
        result = greater if result is None else pc.or_(greater, pc.and_(_same(values, bound), result))
    return result


def with_ties(rows: pa.Table, order: Sequence[str]) -> pa.Table:
    """Number the rows of a sorted table so that those which share their place have the same number."""
    begins = None
    for name in order:
        values = rows.column(name)
        differs = pc.invert(_same(values.slice(1), values.slice(0, max(0, len(values) - 1))))
        begins = differs if begins is None else pc.or_(begins, differs)
    steps = pc.cumulative_sum(pc.cast(begins, pa.int64())).to_pylist() if rows.num_rows > 1 else []
    return rows.append_column(TIES, pa.array([0, *steps][: rows.num_rows], pa.int64()))


def _text(value: pa.Scalar) -> str:
    kind = value.type
    if pa.types.is_temporal(kind):
        return str(value.value)
    if pa.types.is_decimal(kind):
        return format(value.as_py(), "f")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return str(value.as_py().hex())
    return repr(value.as_py()) if pa.types.is_floating(kind) else str(value.as_py())


def _value(text: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_temporal(kind):
        return pa.array([int(text)], pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)[0]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.scalar(bytes.fromhex(text), kind)
    if pa.types.is_floating(kind):
        return pa.scalar(float(text), kind)
    return pc.cast(pa.scalar(text.lower() if pa.types.is_boolean(kind) else text), kind)


def _greater(values: pa.ChunkedArray, bound: pa.Scalar) -> pa.ChunkedArray:
    greater = pc.greater(values, bound)
    if not pa.types.is_floating(bound.type):
        return greater
    # Not a number comes last, and is equal to itself.
    return pc.or_(greater, pc.and_(pc.is_nan(values), pc.invert(pc.is_nan(bound))))


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray | pa.Scalar) -> pa.ChunkedArray:
    same = pc.equal(left, right)
    return pc.or_(same, pc.and_(pc.is_nan(left), pc.is_nan(right))) if pa.types.is_floating(left.type) else same
