"""Refused rows on their way into the quarantine table: some at a time, and what is the same of all told once."""

from collections.abc import Iterator

import pyarrow as pa

_PART_BYTES = 8 * 1024 * 1024
"""A database has what is inserted by one statement several times in memory."""


def columns_once(refused: pa.Table) -> pa.Table:
    """The rows, with their `columns` at the first of those that have the same and NULL at the others: of wide rows they
    are as long as the records.
    """
    place = refused.column_names.index("columns")
    column = refused.column(place).dictionary_encode().unify_dictionaries()
    told: set[int | None] = set()
    once = []
    for number in (number for chunk in column.chunks for number in chunk.indices.to_pylist()):
        once.append(None if number in told else number)
        told.add(number)
    texts = column.chunk(0).dictionary if column.num_chunks else pa.array([], pa.string())
    return refused.set_column(place, "columns", texts.take(pa.array(once, pa.int32())))


def in_parts(refused: pa.Table) -> Iterator[pa.Table]:
    """The rows some megabytes at a time, one row at least."""
    waiting: list[pa.RecordBatch] = []
    size = 0
    for piece in _small(refused):
        if waiting and size + piece.nbytes > _PART_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, size = [], 0
        waiting.append(piece)
        size += piece.nbytes
    if waiting:
        yield pa.Table.from_batches(waiting)


def _small(refused: pa.Table) -> Iterator[pa.RecordBatch]:
    """Pieces that are smaller than a part, or of one row."""
    waiting = refused.to_batches()[::-1]
    while waiting:
        piece = waiting.pop()
        half = piece.num_rows // 2
        if half and piece.nbytes > _PART_BYTES:
            waiting += [piece.slice(half), piece.slice(0, half)]
        else:
            yield piece
