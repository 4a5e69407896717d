"""Many columns are converted some at a time: in one statement each would take up to a megabyte until the
last is done.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from domain.loads.way import WIDE
from domain.stores.table import ORDINAL, Column
from infrastructure.tabular.arrow import arrow_type
from infrastructure.transforms.stages import FAILED, SOURCE, Pair, changed, converted

_TOGETHER = 50


@dataclass(frozen=True)
class InParts:
    """Columns (name, type, wanted type) of which many are converted; of those to be converted `exactly` a text only
    where its value stays the very one that was written.
    """

    pairs: tuple[Pair, ...]
    exactly: frozenset[str] = frozenset()

    @property
    def schema(self) -> pa.Schema:
        """What `convert` gives."""
        return schema_of([Column(name, wanted) for name, _, wanted in self.pairs])

    def convert(self, connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> pa.Table:
        """Convert rows, and name for each the first column that does not convert, unless an earlier stage has."""
        wanted, found, failed = changed(self.pairs), dict[str, pa.ChunkedArray](), list[pa.ChunkedArray]()
        if FAILED in rows.column_names:
            failed.append(rows.column(FAILED))
        ordinals = pa.array(range(rows.num_rows), pa.int64())
        for begin in range(0, len(wanted), _TOGETHER):
            part = wanted[begin : begin + _TOGETHER]
            names = [name for name, *_ in part]
            connection.register(SOURCE, rows.select(names).append_column(ORDINAL, ordinals))
            exactly = [name for name in names if name in self.exactly]
            table = connection.sql(converted(SOURCE, part, earlier="", exactly=exactly)).to_arrow_table()
            found |= {name: table.column(name) for name in names}
            failed.append(table.column(FAILED))
        arrays = [found.get(name, rows.column(name)) for name, *_ in self.pairs]
        first = pc.coalesce(*failed) if failed else pa.nulls(rows.num_rows, pa.string())
        return pa.table([*arrays, first], names=[*(name for name, *_ in self.pairs), FAILED])


def is_wide(columns: Sequence[Column]) -> bool:
    """Whether so many columns of text are converted that they are not in one statement."""
    return len(changed(of_text(columns))) > WIDE


def of_text(columns: Sequence[Column]) -> tuple[Pair, ...]:
    """The conversions of columns that arrive as text."""
    return tuple((column.name, "string", column.type) for column in columns)


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Columns as they are once they are converted in parts."""
    return pa.schema([*((column.name, arrow_type(column.type)) for column in columns), (FAILED, pa.string())])


def converted_by_parts(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, columns: Sequence[Column], guessed: Collection[str]
) -> pa.Table:
    """Convert rows of text, and name for each the first column that does not convert."""
    return InParts(of_text(columns), frozenset(guessed)).convert(connection, rows)
