"""The names of a table of a Postgres that is named with its schema here and without there, where the role's path leads:
what Headrace notes of it lies beside each of them.
"""

from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.reserved import Catalog
from infrastructure.stores.sql.session import CHECKPOINT, OWNER, QUARANTINE

# Nobody else's tables of those names are asked: they might be of other columns, or locked.
_KEPT_APART = """
SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1) AND c.oid = to_regclass($2) AND (
  SELECT bool_and((here.oid <> there.oid
    AND pg_has_role(here.relowner, 'USAGE') AND pg_has_role(there.relowner, 'USAGE')
    AND 4 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid IN (here.oid, there.oid)
      AND a.atttypid = 'text'::regtype AND a.attname IN ('org', 'pipeline'))) IS TRUE)
  FROM unnest(string_to_array($3, ',')) AS kept(name)
  LEFT JOIN pg_class here ON here.oid = to_regclass(kept.name) AND here.relkind = 'r'
  LEFT JOIN pg_class there ON there.relname = kept.name AND there.relnamespace = n.oid AND there.relkind = 'r')"""

AIMED = """"target" IN ($3, (
  SELECT CASE WHEN strpos($3, '.') = 0 THEN n.nspname || '.' || c.relname
    WHEN c.oid = to_regclass(quote_ident(c.relname)) THEN c.relname::text END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.oid = to_regclass('"' || replace($3, '.', '"."') || '"')))"""
"""Refused rows that were meant for a table by either of its names."""


def names_of(session: Catalog, table: TableName) -> list[TableName]:
    """The names of a table with tables of ours beside each, its own first."""
    found = session.execute(
        _KEPT_APART, (quote_table(table), quote(table.table), ",".join((CHECKPOINT, OWNER, QUARANTINE)))
    )
    return [table, *(TableName(table.table, None if table.schema else schema) for (schema,) in found)]
