"""Stores that stand in for those of another process, so that commands can plan with what it tells of them."""

from collections.abc import Sequence

from domain.ports.data_store import IDataStore
from domain.stores.table import TableSchema
from infrastructure.stores.duckdb.described import DescribedDuckDB


def duckdb_as_described(tables: Sequence[TableSchema]) -> IDataStore:
    """A DuckDB without rows that has these tables."""
    return DescribedDuckDB(tables)
