"""Of how many pieces a table is: DuckDB keeps room for each of them, in each column, while it writes or reads it."""

from collections.abc import Sequence

import pyarrow as pa

_LEAST_BYTES = 8 * 1024
"""What DuckDB takes for a piece of a column, however little is in it."""


def joined(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """A table of record batches of one schema."""
    return in_few_pieces(pa.Table.from_batches(batches))


def in_few_pieces(table: pa.Table) -> pa.Table:
    """The same rows; copied into one piece where those of a table with many columns are so small that they
    would take more than what is in them.
    """
    pieces = sum(column.num_chunks for column in table.columns)
    if pieces <= table.num_columns or table.nbytes >= pieces * _LEAST_BYTES:
        return table
    return table.combine_chunks()
