"""Headrace's own tables in a Postgres."""

from domain.errors import PlatformError
from domain.loads.quarantine import PLACE
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.types import native_of
from infrastructure.stores.sql.session import (
    CHECKPOINT,
    LATER_COLUMNS,
    MERGE_KEY,
    OWNER,
    QUARANTINE,
    QUARANTINE_COLUMNS,
    Session,
    add_columns,
    bring_up_to_date,
    checkpoint_ddl,
    owner_ddl,
)

INDEX = "_headrace_quarantine_place"
"""The index by which refused rows are read in their order. Without it each page of them looks at all."""
_INDEXED_BYTES = 128 * 1024 * 1024
"""A table of an earlier version gets it as long as that takes a moment: nobody may write to the table meanwhile."""
_IS_COMPLETE = """to_regclass($2) IS NOT NULL AND to_regclass($3) IS NOT NULL
  AND (SELECT count(*) = $4 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname IN ('writer', 'format'))
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($2) AND attname = 'deletes')
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($3) AND attname = 'merge_key')
  AND NOT EXISTS (SELECT FROM pg_class WHERE oid IN (to_regclass($2), to_regclass($3))
  AND relreplident = 'd' AND pg_has_role(relowner, 'USAGE'))"""
_MAY_BE_INDEXED = """EXISTS (
  SELECT FROM pg_class AS kept WHERE kept.oid = to_regclass($3) AND kept.relkind = 'r'
  AND pg_has_role(kept.relowner, 'USAGE') AND has_schema_privilege(kept.relnamespace, 'CREATE')
  AND pg_relation_size(kept.oid) < $6 AND NOT EXISTS (
    SELECT FROM pg_class AS other WHERE other.relnamespace = kept.relnamespace AND other.relname = $5))"""


def create_internal_tables(session: Session, schema: str | None) -> None:
    """Create schema and tables if absent."""
    tables = [TableName(name, schema) for name in (CHECKPOINT, OWNER, QUARANTINE)]
    [(is_complete, may_be_indexed)] = session.execute(
        f"SELECT {_IS_COMPLETE}, {_MAY_BE_INDEXED}",
        [*(quote_table(table) for table in tables), len(LATER_COLUMNS), INDEX, _INDEXED_BYTES],
    )
    if may_be_indexed:
        _try_index(session, tables[2])
    if is_complete:
        return
    # Two processes that create the same table at once would collide in the catalog.
    session.execute("SELECT pg_advisory_xact_lock(727201402)")
    if schema and not session.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)):
        session.execute(f"CREATE SCHEMA {quote(schema)}")
    session.execute(checkpoint_ddl(quote_table(tables[0]), primary_key=True))
    # It waits for the batches of workers of an earlier version; one that is stopped must not stop everybody.
    session.execute("SET LOCAL lock_timeout = '10s'")
    session.execute(owner_ddl(quote_table(tables[1])))
    bring_up_to_date(session, tables[0])
    definitions = ", ".join(f"{quote(c.name)} {native_of(c.type)}" for c in QUARANTINE_COLUMNS)
    if (kept := session.describe(tables[2])) is not None:
        add_columns(session, kept, [MERGE_KEY])
    else:
        session.execute(f"CREATE TABLE {quote_table(tables[2])} ({definitions})")
        session.execute(_index(tables[2]))
    for table in tables[1:]:
        # They have no key, and where every table is published Postgres wants to know how a row is told from another.
        session.execute(f"ALTER TABLE {quote_table(table)} REPLICA IDENTITY FULL")


def _index(quarantine: TableName) -> str:
    columns = ", ".join(map(quote, ("org", "pipeline", *PLACE[:-1])))
    return f"CREATE INDEX IF NOT EXISTS {quote(INDEX)} ON {quote_table(quarantine)} ({columns})"


def _try_index(session: Session, quarantine: TableName) -> None:
    """Give a table of an earlier version its index, unless somebody is writing to it; another run will then."""
    session.execute("SAVEPOINT headrace_index")
    try:
        session.execute(f"LOCK TABLE {quote_table(quarantine)} IN SHARE MODE NOWAIT")
        session.execute(_index(quarantine))
    except PlatformError:
        session.execute("ROLLBACK TO SAVEPOINT headrace_index")
