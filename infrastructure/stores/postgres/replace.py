"""Replacing a table on Postgres: by another one, or by its rows alone where something would be lost with the table."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domain.errors import InvalidInputError, SchemaMismatchError
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.merge import merge_whole
from infrastructure.stores.sql.session import Session, add_landing

# What a table has that is not in its columns' names and types, or that knows it by its number: all of it would be gone
# with it, without a word. A publication of everything takes a table by its number too.
_IS_BOUND = """
SELECT c.relkind <> 'r' OR c.relpersistence <> 'p' OR c.relhasindex OR c.relhastriggers OR c.relhasrules
  OR c.relrowsecurity OR c.relforcerowsecurity OR c.relispartition OR c.relhassubclass OR c.relreplident <> 'd'
  OR c.relacl IS NOT NULL OR c.reloptions IS NOT NULL OR c.reltablespace <> 0 OR c.reloftype <> 0
  OR c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
  OR c.relam <> (SELECT oid FROM pg_am WHERE amname = current_setting('default_table_access_method'))
  OR EXISTS (
    SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (
      a.attnotnull OR a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR a.attacl IS NOT NULL
      OR a.attoptions IS NOT NULL OR a.attstorage <> t.typstorage OR a.attcompression <> ''
      OR coalesce(a.attstattarget, -1) <> -1 OR a.attcollation <> t.typcollation OR a.attfdwoptions IS NOT NULL))
  OR EXISTS (SELECT FROM pg_constraint k WHERE c.oid IN (k.conrelid, k.confrelid))
  OR EXISTS (SELECT FROM pg_inherits h WHERE c.oid IN (h.inhrelid, h.inhparent))
  OR EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass)
  OR EXISTS (SELECT FROM pg_seclabel l WHERE l.objoid = c.oid AND l.classoid = 'pg_class'::regclass)
  OR EXISTS (SELECT FROM pg_publication WHERE puballtables)
  OR EXISTS (SELECT FROM pg_publication_rel p WHERE p.prrelid = c.oid)
  OR EXISTS (SELECT FROM pg_publication_namespace p WHERE p.pnnspid = c.relnamespace)
  OR EXISTS (
    SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass)
  OR EXISTS (
    SELECT FROM pg_depend d LEFT JOIN pg_type t ON t.typrelid = c.oid
    WHERE d.deptype <> 'i' AND (
      (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
      OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray))))
FROM pg_class c WHERE c.oid = to_regclass($1)"""

# The same, but for a primary key and what comes with it.
_IS_BOUND_BESIDES_KEY = (
    _IS_BOUND.replace("c.relhasindex",
                      "EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND NOT i.indisprimary)")
    .replace("a.attnotnull", "(a.attnotnull AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND "
             "i.indisprimary AND a.attnum = ANY (i.indkey::int2[])))")
    .replace("WHERE c.oid IN (k.conrelid, k.confrelid)",
             "WHERE c.oid = k.confrelid OR (c.oid = k.conrelid AND k.contype NOT IN ('p', 'n'))")
    .replace("d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid",
             "d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid "
             "AND d.classid <> 'pg_constraint'::regclass "
             "AND NOT (d.classid = 'pg_class'::regclass AND d.deptype = 'a')")
)  # fmt: skip

# Another table would be put into the first schema of the role's path, and out of sight of all who name this one's.
_IS_ELSEWHERE = """
SELECT n.nspname <> coalesce($2, current_schema()) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass($1)"""

# To delete rows of a table whose deletions are published, Postgres wants to know how a row is told from another.
_IS_UNTOLD = """
SELECT CASE c.relreplident WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END FROM pg_class c
WHERE c.oid = to_regclass($1) AND c.relkind = 'r' AND c.relpersistence = 'p'
  AND (c.relreplident = 'n' OR (c.relreplident = 'd' AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)))
  AND EXISTS (
    SELECT FROM pg_publication p WHERE p.pubdelete AND (
      p.puballtables
      OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
      OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace)))"""

# The columns by which other tables refer to this one.
_REFERRED_BY = """
SELECT array_to_json(array(
    SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS n(num, place)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n.num ORDER BY n.place))::text
FROM pg_constraint k
WHERE k.confrelid = to_regclass($1) AND k.contype = 'f' AND k.conrelid <> k.confrelid AND k.conparentid = 0
ORDER BY k.conname"""


def bound_of(session: Session, table: TableName) -> str:
    """What would be lost with a table: nothing, its key alone, or more."""
    if _is_elsewhere(session, table):
        return "more"
    if not session.execute(_IS_BOUND, (quote_table(table),))[0][0]:
        return ""
    return "more" if session.execute(_IS_BOUND_BESIDES_KEY, (quote_table(table),))[0][0] else "key"


def swap(session: Session, stage: TableName, table: TableName, names: Sequence[str]) -> None:
    """Put the stage in the place of the table, or its columns `names` where something would be lost with the table."""
    if session.describe(table) is None:
        session.execute(f"ALTER TABLE {quote_table(stage)} RENAME TO {quote(table.table)}")
    elif not (_is_elsewhere(session, table) or session.execute(_IS_BOUND, (quote_table(table),))[0][0]):
        session.execute(f"DROP TABLE {quote_table(table)}")
        session.execute(f"ALTER TABLE {quote_table(stage)} RENAME TO {quote(table.table)}")
    else:
        add_landing(session, stage, table, names)
        _exchange_rows(session, stage, table, names)
        session.execute(f"DROP TABLE {quote_table(stage)}")


def _is_elsewhere(session: Session, table: TableName) -> bool:
    """Whether a name leads by the role's path to a table of another schema than the one in which a table is made."""
    return bool(session.execute(_IS_ELSEWHERE, (quote_table(table), table.schema)) == [(True,)])


def clear(session: Session, stage: TableName, table: TableName, key: Sequence[str] = ()) -> None:
    """Delete the rows of a table; with a key, only those whose key the stage does not have."""
    same = " AND ".join(f"staged.{quote(name)} = target.{quote(name)}" for name in key)
    gone = f" WHERE NOT EXISTS (SELECT 1 FROM {quote_table(stage)} AS staged WHERE {same})" if key else ""
    with _told(session, table):
        # Rows that a policy hides would stay behind the new ones: then the deletion is refused.
        [[before, _]] = session.execute(
            "SELECT current_setting('row_security'), set_config('row_security', 'off', true)"
        )
        session.execute(f"DELETE FROM {quote_table(table)} AS target{gone}")
        session.execute("SELECT set_config('row_security', $1, true)", (before,))


def is_referred(session: Session, table: TableName) -> bool:
    """Whether other tables refer to it: deleting every row would reach theirs, or be refused for their sake."""
    return bool(session.execute(_REFERRED_BY, (quote_table(table),)))


def _exchange_rows(session: Session, stage: TableName, table: TableName, names: Sequence[str]) -> None:
    referred = session.execute(_REFERRED_BY, (quote_table(table),))
    if referred:
        key = json.loads(referred[0][0])
        _check_key(table, key, names)
        session.execute(f"ANALYZE {quote_table(stage)}")
        _check_repeats(session, stage, table, key)
        clear(session, stage, table, key)
        merge_whole(session, quote_table(stage), names, table, key)
        return
    clear(session, stage, table)
    chosen = ", ".join(quote(name) for name in names)
    into = f"INSERT INTO {quote_table(table)} ({chosen}){session.overriding}"
    session.execute(f"{into} SELECT {chosen} FROM {quote_table(stage)}")


def _check_key(table: TableName, key: Sequence[str], names: Sequence[str]) -> None:
    if set(key) <= set(names):
        return
    raise SchemaMismatchError(
        f"Other tables refer to {table} by {', '.join(key)}, which the rows that would replace it lack: give them that "
        "column, or use mode: append or merge.",
        code="destination.referred",
    )


def _check_repeats(session: Session, stage: TableName, table: TableName, key: Sequence[str]) -> None:
    listed = ", ".join(quote(name) for name in key)
    filled = " AND ".join(f"{quote(name)} IS NOT NULL" for name in key)
    repeats = f"SELECT 1 FROM {quote_table(stage)} WHERE {filled} GROUP BY {listed} HAVING count(*) > 1 LIMIT 1"
    if session.execute(repeats):
        raise SchemaMismatchError(
            f"Two of the rows that would replace {table} have the same {', '.join(key)}, which is unique there.",
            code="destination.constraint",
        )


@contextmanager
def _told(session: Session, table: TableName) -> Iterator[None]:
    """Let rows be deleted whose deletion is published although nothing but all of their values tells one
    from another.
    """
    identity = session.execute(_IS_UNTOLD, (quote_table(table),))
    if not identity:
        yield
        return
    session.execute(f"ALTER TABLE {quote_table(table)} REPLICA IDENTITY FULL")
    try:
        yield
    except InvalidInputError as error:
        if getattr(error.__cause__, "sqlstate", None) != "42P10":
            raise
        raise SchemaMismatchError(
            f"A publication has some of the columns of {table} only, so Postgres cannot tell it which rows are gone: "
            "give the table a primary key of columns that are published, or use mode: append or merge.",
            code="destination.published",
        ) from error
    session.execute(f"ALTER TABLE {quote_table(table)} REPLICA IDENTITY {identity[0][0]}")
