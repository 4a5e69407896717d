"""Rows as bytes and back: how they go to a child process and come from one, which may tell anything."""

import pyarrow as pa


def as_bytes(rows: pa.Table) -> pa.Buffer:
    """Write rows in Arrow's own stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def of_bytes(content: bytes | pa.Buffer) -> pa.Table:
    """Read rows, without a copy; each offset and text in them is checked before anything relies on it.

    Raises:
        pa.ArrowException: they are not sound.
    """
    with pa.ipc.open_stream(content) as reader:
        rows = reader.read_all()
    rows.validate(full=True)
    return rows
