"""What hides rows of a Postgres from this role, or keeps them from landing, without an error: policies, triggers,
rules.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from domain.stores.table import TableName
from infrastructure.sql import quote_table

# A table is read by the role whose rights a view reads it with, unless the view asks for those of whoever reads; a
# partition by way of what it is a part of. Where a query names a table beside a view of it, both roles read it.
_HIDING = """
WITH held AS (
  SELECT c.* FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
  WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())),
behind AS (
  SELECT d.refobjid AS oid, v.relowner AS reader FROM held v
  JOIN pg_rewrite w ON w.ev_class = v.oid
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
  WHERE v.relkind = 'v' AND NOT coalesce(
    (SELECT o.option_value::bool FROM pg_options_to_table(v.reloptions) o WHERE o.option_name = 'security_invoker'),
    false)),
read AS (
  SELECT h.*, lower(h.relname) IN (SELECT lower(json_array_elements_text($1::json))) AS is_named FROM held h
  WHERE h.relkind IN ('r', 'p') AND h.relrowsecurity)
SELECT DISTINCT t.oid::regclass::text, r.rolname::text, r.rolname = current_user FROM read t JOIN pg_roles r
  ON r.oid IN (SELECT b.reader FROM behind b WHERE b.oid = t.oid)
  OR (r.rolname = current_user AND (t.is_named OR t.oid NOT IN (SELECT b.oid FROM behind b)))
WHERE NOT r.rolsuper AND NOT r.rolbypassrls AND (t.relforcerowsecurity OR NOT pg_has_role(r.oid, t.relowner, 'USAGE'))
  AND (t.is_named OR NOT EXISTS (SELECT FROM pg_inherits i JOIN held p ON p.oid = i.inhparent WHERE i.inhrelid = t.oid))
ORDER BY 1, 2"""
# A trigger for each row or a rule may write a row elsewhere, or nowhere; on a partition too. Behind a view and on
# another server there may be all of that, and a view shows some of the rows.
_MAY_SUPPRESS = """
SELECT c.relkind IN ('v', 'f') OR row_security_active(c.oid)
  OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '3')
  OR EXISTS (SELECT FROM pg_class p WHERE p.relkind = 'f' AND p.oid IN (SELECT t.relid FROM pg_partition_tree(c.oid) t))
  OR EXISTS (
    SELECT FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 4) = 4
      AND (t.tgrelid = c.oid OR t.tgrelid IN (SELECT p.relid FROM pg_partition_tree(c.oid) p)))
FROM pg_class c WHERE c.oid = to_regclass($1)"""

# A trigger before a row, or in its place, for whatever is done; a rule that is no view's.
_MAY_ALTER = """
SELECT row_security_active(c.oid) OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1')
  OR EXISTS (
    SELECT FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
      AND (t.tgtype & 1) = 1 AND (t.tgtype & 66) > 0
      AND (t.tgrelid = c.oid OR t.tgrelid IN (SELECT p.relid FROM pg_partition_tree(c.oid) p)))
FROM pg_class c WHERE c.oid = to_regclass($1)"""


class Asking(Protocol):
    """What this needs of a session."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""


def hidden_at(session: Asking, names: Sequence[str]) -> tuple[str, ...]:
    """Say of which tables a source, which names some, may not see every row, as policies hide some; the transaction has
    selected the source, so that it holds all that is read.
    """
    return tuple(
        f"row-level security is on for {table} and "
        f"{'this role' if is_own else f'the role {role}, whose view reads it'}: rows that its policies hide are not "
        "read, and nobody counts them; read as the owner, or as a role with BYPASSRLS"
        for table, role, is_own in session.execute(_HIDING, (json.dumps(sorted(set(names))),))
    )


def may_suppress(session: Asking, table: TableName) -> bool:
    """Whether rows that are written to a table may not show in it."""
    rows = session.execute(_MAY_SUPPRESS, (quote_table(table),))
    return bool(rows and rows[0][0])


def may_hide(session: Asking, table: TableName) -> bool:
    """Whether policies may hide rows of a table from this role."""
    return session.execute("SELECT row_security_active(to_regclass($1))", (quote_table(table),)) == [(True,)]


def may_alter(session: Asking, table: TableName) -> bool:
    """Whether what is written to a table, or changed in it, may be something else there."""
    rows = session.execute(_MAY_ALTER, (quote_table(table),))
    return bool(rows and rows[0][0])


def insert_counted(session: Asking, into: str, rows: str, names: str) -> int:
    """Insert what a query gives and return how many rows that is, not how many of them were let in."""
    session.execute(f"CREATE TEMPORARY TABLE headrace_selected ({names}) ON COMMIT DROP AS {rows}")
    session.execute(f"{into} SELECT * FROM pg_temp.headrace_selected")
    count = int(session.execute("SELECT count(*) FROM pg_temp.headrace_selected")[0][0])
    session.execute("DROP TABLE pg_temp.headrace_selected")
    return count
