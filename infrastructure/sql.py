"""Quoting of SQL, shared by the adapter families: the only place where names become text."""

from functools import lru_cache

from domain.errors import InvalidInputError
from domain.stores.table import TableName, check_identifier


@lru_cache(maxsize=4096)
def quote(name: str) -> str:
    """Quote an identifier for Postgres and DuckDB.

    Raises:
        InvalidInputError: what `check_identifier` refuses (`identifier.invalid`).
    """
    try:
        check_identifier(name)
    except ValueError as error:
        raise InvalidInputError(
            f"The name {name[:100]!r} cannot be one of a column or table: {error}.", code="identifier.invalid"
        ) from error
    return f'"{name}"'


def quote_table(table: TableName) -> str:
    """Quote a table with its schema, if it has one."""
    return f"{quote(table.schema)}.{quote(table.table)}" if table.schema else quote(table.table)
