"""Headrace's own tables in a DuckDB file."""

import re

from domain.stores.table import Column, TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.session import (
    CHECKPOINT,
    MERGE_KEY,
    OWNER,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    RECORD_BYTES,
    Session,
    add_columns,
    bring_up_to_date,
    checkpoint_ddl,
    owner_ddl,
)
from infrastructure.tabular.duckdb_types import native_of

_VERSION = re.compile(r"v(\d+)\.(\d+)\.")


def create_internal_tables(session: Session, schema: str | None) -> None:
    """Create schema and tables if absent, and give those of earlier versions what came since."""
    if schema:
        session.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}")
    checkpoint, quarantine = TableName(CHECKPOINT, schema), TableName(QUARANTINE, schema)
    session.execute(checkpoint_ddl(quote_table(checkpoint), primary_key=False))
    session.execute(owner_ddl(quote_table(TableName(OWNER, schema))))
    bring_up_to_date(session, checkpoint)
    existing = session.describe(quarantine)
    if existing is not None:
        add_columns(session, existing, [RECORD_BYTES, MERGE_KEY])
        return
    kept = _kept(session)
    definitions = ", ".join(_definition(column, kept) for column in (*QUARANTINE_COLUMNS, RECORD_BYTES))
    session.execute(f"CREATE TABLE IF NOT EXISTS {quote_table(quarantine)} ({definitions})")


def _definition(column: Column, kept: str) -> str:
    return f"{quote(column.name)} {native_of(column.type)}{kept if column.name == 'record' else ''}"


def _kept(session: Session) -> str:
    """How records are kept: not by the way that DuckDB takes for long text, of which it unpacks 2,048 rows
    to read one.
    """
    found = session.execute(
        "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
    )
    return compressed(str(found[0][0]))


def compressed(storage_version: str) -> str:
    """The clause for a file of some version, as `v1.4.0+`: to name a way that it does not know is an error."""
    version = _VERSION.match(storage_version)
    if version is None or (number := tuple(map(int, version.groups()))) < (1, 2):
        return ""  # There is nothing of that kind before, nor in memory.
    return f" USING COMPRESSION {'fsst' if number < (1, 3) else 'dict_fsst'}"
