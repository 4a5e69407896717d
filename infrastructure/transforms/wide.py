"""Many columns of text are converted some at a time: in one statement each would take up to a megabyte until the last is done."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from domain.loads.way import WIDE
from domain.stores.table import ORDINAL, Column
from infrastructure.tabular.arrow import arrow_type
from infrastructure.transforms.conversions import sql_type
from infrastructure.transforms.stages import FAILED, SOURCE, converted

_TOGETHER = 50


def is_wide(columns: Sequence[Column]) -> bool:
    """Whether so many columns are converted that they are not in one statement."""
    return len(_changed(columns)) > WIDE


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """What `converted_by_parts` gives."""
    return pa.schema([*((column.name, arrow_type(column.type)) for column in columns), (FAILED, pa.string())])


def converted_by_parts(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, columns: Sequence[Column], guessed: Sequence[str]
) -> pa.Table:
    """Convert rows of text, and name for each the first column that does not convert."""
    wanted, found, failed = _changed(columns), dict[str, pa.ChunkedArray](), list[pa.ChunkedArray]()
    ordinals, guesses = pa.array(range(rows.num_rows), pa.int64()), frozenset(guessed)
    for begin in range(0, len(wanted), _TOGETHER):
        part = wanted[begin : begin + _TOGETHER]
        names = [column.name for column in part]
        connection.register(SOURCE, rows.select(names).append_column(ORDINAL, ordinals))
        pairs = [(column.name, "string", column.type) for column in part]
        exactly = [name for name in names if name in guesses]
        table = connection.sql(converted(SOURCE, pairs, earlier="", exactly=exactly)).to_arrow_table()
        found |= {name: table.column(name) for name in names}
        failed.append(table.column(FAILED))
    arrays = [found.get(column.name, rows.column(column.name)) for column in columns]
    first = pc.coalesce(*failed) if failed else pa.nulls(rows.num_rows, pa.string())
    return pa.table([*arrays, first], schema=schema_of(columns))


def _changed(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if not (column.type == "string" and sql_type(column.type) == "VARCHAR")]
