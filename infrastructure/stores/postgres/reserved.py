"""Which relations of a Postgres are nobody's to read or write by a pipeline, found in the catalog and not by their
spelling.

They are the records' (schema headrace), the fence's own (`_headrace…`) and the database's. A name may lead to them by
the search path, as a view or a rule over them, or as a part or a parent of them.
"""

import json
from collections.abc import Sequence
from typing import Any, Protocol

from domain.errors import InvalidInputError, QueryRefusedError
from domain.stores.table import INTERNAL_PREFIX, TableName
from infrastructure.sql import quote_table


class Catalog(Protocol):
    """What looking into the catalog needs of a session."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `$n` parameters and return its rows."""


_OURS = "(n.nspname = 'headrace' OR lower(c.relname) LIKE '\\_headrace%')"
_SYSTEM = "(n.nspname = 'information_schema' OR n.nspname LIKE 'pg\\_%')"
# What a rule of a view or table reads or writes; what rows of a table show in; what shows in a table.
_RULES = (
    "SELECT d.refobjid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid "
    "AND d.refclassid = 'pg_class'::regclass WHERE w.ev_class = r.oid"
)
_CHILDREN = "SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = r.oid"
_PARENTS = "SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = r.oid"
_WRITTEN = f"""
WITH RECURSIVE reached AS (
  SELECT to_regclass($1)::oid AS oid WHERE to_regclass($1) IS NOT NULL
  UNION SELECT x.oid FROM reached r CROSS JOIN LATERAL ({_RULES} UNION {_CHILDREN} UNION {_PARENTS}) AS x(oid))
SELECT 1 FROM reached r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS} OR {_SYSTEM}
UNION ALL SELECT 1 FROM (SELECT coalesce($2, current_schema())) AS n(nspname)
WHERE to_regclass($1) IS NULL AND (n.nspname = 'headrace' OR {_SYSTEM})
LIMIT 1"""
# Most tables lead nowhere.
_LEADS = f"""
SELECT coalesce(
  (SELECT {_OURS} OR {_SYSTEM} OR c.relhasrules OR c.relhassubclass OR EXISTS (SELECT FROM pg_inherits i WHERE
  i.inhrelid = c.oid)
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)),
  (SELECT n.nspname = 'headrace' OR {_SYSTEM} FROM (SELECT coalesce($2, current_schema())) AS n(nspname)))"""
# A transaction that only reads has locked what it reads, whatever the text made of the names. One that writes has
# locked more.
_READ = f"""
WITH RECURSIVE named AS (SELECT to_regclass(t)::oid AS oid FROM json_array_elements_text($1::json) AS t),
held AS (
  SELECT l.relation AS oid FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
    AND l.relation >= 16384 AND current_setting('transaction_read_only')::bool),
reached AS (
  SELECT oid FROM named WHERE oid IS NOT NULL UNION SELECT oid FROM held
  UNION SELECT x.oid FROM reached r CROSS JOIN LATERAL ({_RULES} UNION {_CHILDREN}) AS x(oid))
SELECT EXISTS (
    SELECT FROM reached r JOIN pg_class c ON c.oid = r.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS})
  OR EXISTS (SELECT FROM named m JOIN pg_class c ON c.oid = m.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE
  {_SYSTEM})
  OR ($2 AND NOT EXISTS (
    SELECT FROM held h JOIN pg_class c ON c.oid = h.oid WHERE c.relkind = 'v' OR c.relrowsecurity))"""
# It reads no relation itself. Types are looked up by our own statements.
_SYSTEM_HELD = (
    "SELECT relation::bigint FROM pg_catalog.pg_lock_status() WHERE pid = pg_catalog.pg_backend_pid() "
    "AND locktype = 'relation' AND relation < 16384 AND relation NOT IN (1247, 2703, 2704)"
)


def refuse_reserved(session: Catalog, table: TableName) -> None:
    """Refuse a table to describe, write, or compare with; the fence's own, which no document may name, are let through.

    Raises:
        InvalidInputError: it is, or leads to, one that is reserved (`identifier.reserved`).
    """
    named = (quote_table(table), table.schema)
    if table.table.startswith(INTERNAL_PREFIX) or session.execute(_LEADS, named) == [(False,)]:
        return
    if session.execute(_WRITTEN, named):
        raise InvalidInputError(
            f"The table {table} is, or leads to, one that belongs to Headrace or the database: the schema headrace, "
            "tables whose names start with _headrace, and the system's own schemas cannot be used; choose another "
            "table.",
            code="identifier.reserved",
        )


def system_held(session: Catalog) -> frozenset[int]:
    """The system's own relations that the transaction has read."""
    return frozenset(number for (number,) in session.execute(_SYSTEM_HELD))


def refuse_read(session: Catalog, names: Sequence[str], before: frozenset[int] | None) -> None:
    """Refuse a source that has just been selected: the relations that it names, and what of a query was held before
    that.

    Behind a view or policy of a user's the system's relations may be read, as their owner meant it.

    Raises:
        QueryRefusedError: it reads a relation that is reserved (`query.forbidden_relation`).
    """
    is_system = before is not None and bool(system_held(session) - before)
    if session.execute(_READ, (json.dumps(names), is_system))[0][0]:
        raise QueryRefusedError(
            "The source reads, perhaps behind a view, a relation that belongs to Headrace or the database: the "
            "schema headrace, tables whose names start with _headrace, and the system's own schemas cannot be read.",
            code="query.forbidden_relation",
        )
