"""A DuckDB in memory with the tables of a file that another process holds, as that one describes them: all but their
rows.
"""

from collections.abc import Sequence

import pyarrow as pa

from domain.stores.table import TableName, TableSchema
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.tabular.arrow import arrow_type


class DescribedDuckDB(DuckDBDataStore):
    """Plans are made with it as with the file itself; whatever is written to it is gone when it is closed."""

    def __init__(self, tables: Sequence[TableSchema]) -> None:
        super().__init__(DuckDBOptions(None))
        self._tables = {str(schema.name).lower(): schema for schema in tables}

    async def open(self) -> None:
        await super().open()
        for schema in self._tables.values():
            fields = [(column.name, arrow_type(column.type)) for column in schema.columns]
            await self.write(schema.name, [pa.schema(fields).empty_table()])

    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        return self._tables.get(str(table).lower())
