"""Headrace's own tables in a Postgres."""

from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.types import native_of
from infrastructure.stores.sql.session import (
    CHECKPOINT,
    LATER_COLUMNS,
    OWNER,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    Session,
    bring_up_to_date,
    checkpoint_ddl,
    owner_ddl,
)


def create_internal_tables(session: Session, schema: str | None) -> None:
    """Create schema and tables if absent."""
    tables = [TableName(name, schema) for name in (CHECKPOINT, OWNER, QUARANTINE)]
    found = session.execute(
        "SELECT to_regclass($2) IS NOT NULL AND to_regclass($3) IS NOT NULL AND (SELECT count(*) = $4 "
        "FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname IN ('writer', 'format')) "
        "AND NOT EXISTS (SELECT FROM pg_class WHERE oid IN (to_regclass($2), to_regclass($3)) "
        "AND relreplident = 'd' AND pg_has_role(relowner, 'USAGE'))",
        [*(quote_table(table) for table in tables), len(LATER_COLUMNS)],
    )
    if found[0][0]:
        return
    # Two processes that create the same table at once would collide in the catalog.
    session.execute("SELECT pg_advisory_xact_lock(727201402)")
    if schema and not session.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)):
        session.execute(f"CREATE SCHEMA {quote(schema)}")
    session.execute(checkpoint_ddl(quote_table(tables[0]), primary_key=True))
    # It waits for the batches of workers of an earlier version; one that is stopped must not stop everybody.
    session.execute("SET LOCAL lock_timeout = '10s'")
    bring_up_to_date(session, tables[0])
    session.execute(owner_ddl(quote_table(tables[1])))
    definitions = ", ".join(f"{quote(c.name)} {native_of(c.type)}" for c in QUARANTINE_COLUMNS)
    session.execute(f"CREATE TABLE IF NOT EXISTS {quote_table(tables[2])} ({definitions})")
    for table in tables[1:]:
        # They have no key, and where every table is published Postgres wants to know how a row is told from another.
        session.execute(f"ALTER TABLE {quote_table(table)} REPLICA IDENTITY FULL")
