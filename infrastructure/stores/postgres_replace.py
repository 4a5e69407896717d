"""Replacing a table on Postgres: by another one, or by its rows alone where something would be lost with the table."""

from collections.abc import Sequence

from domain.pipelines.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql_session import Session, add_landing


def swap(session: Session, stage: TableName, table: TableName, names: Sequence[str]) -> None:
    """Put the stage in the place of the table, or its columns `names` where something would be lost with the table."""
    if session.describe(table) is None:
        session.execute(f"ALTER TABLE {quote_table(stage)} RENAME TO {quote(table.table)}")
        return
    if not _is_bound(session, table):
        session.execute(f"DROP TABLE {quote_table(table)}")
        session.execute(f"ALTER TABLE {quote_table(stage)} RENAME TO {quote(table.table)}")
        return
    # Views, keys, indexes, grants and triggers follow the table itself, so its rows are exchanged instead.
    add_landing(session, stage, table, names)
    chosen = ", ".join(quote(name) for name in names)
    session.execute(f"DELETE FROM {quote_table(table)}")
    into = f"INSERT INTO {quote_table(table)} ({chosen}){session.overriding}"
    session.execute(f"{into} SELECT {chosen} FROM {quote_table(stage)}")
    session.execute(f"DROP TABLE {quote_table(stage)}")


def _is_bound(session: Session, table: TableName) -> bool:
    rows = session.execute(
        "SELECT c.relacl IS NOT NULL OR c.relkind <> 'r' OR c.relhasindex OR c.relhastriggers OR c.relrowsecurity "
        "OR c.relispartition OR EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conrelid = c.oid) "
        "OR EXISTS (SELECT 1 FROM pg_attrdef d WHERE d.adrelid = c.oid) "
        "OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.refobjid = c.oid AND d.classid = 'pg_rewrite'::regclass) "
        "FROM pg_class c WHERE c.oid = to_regclass($1)",
        (quote_table(table),),
    )
    return bool(rows and rows[0][0])
