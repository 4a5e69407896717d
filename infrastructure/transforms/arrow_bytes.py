"""Rows as bytes and back: how they go to a child process and come from one, which may tell anything."""

import pyarrow as pa

from infrastructure.transforms.arrow_messages import check_stream


def as_bytes(rows: pa.Table) -> pa.Buffer:
    """Write rows in Arrow's own stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def of_bytes(content: bytes | pa.Buffer) -> pa.Table:
    """Read rows, without a copy; each offset and text in them is checked before anything relies on it.

    Raises:
        pa.ArrowException: they are not sound, or take more room than the bytes they came in.
    """
    check_stream(content)
    with pa.ipc.open_stream(content) as reader:
        rows = reader.read_all()
    for column in rows.columns:
        for chunk in column.chunks:
            # Of a time of day more is asked than that its bytes are there: Postgres and DuckDB know 24:00:00, Arrow
            # does not.
            kind = _without_clock(chunk.type)
            (chunk if kind == chunk.type else chunk.view(kind)).validate(full=True)
    return rows


def _without_clock(kind: pa.DataType) -> pa.DataType:
    """A type with whole numbers in the place of times of day, which are as long."""
    types = pa.types
    if types.is_time(kind):
        return pa.int64() if types.is_time64(kind) else pa.int32()
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_clock(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_clock(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_without_clock(kind.key_type), _without_clock(kind.item_type))
    return kind
