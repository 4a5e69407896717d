"""Merging by key on Postgres: what keeps a key unique in a table, and a merge that another one got ahead of."""

import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from domain.errors import PlatformError, StoreUnavailableError
from domain.pipelines.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql_session import Session

T = TypeVar("T")

_ATTEMPTS = 10
_NAMES_OF_KEY = """(
    SELECT json_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")::text
    FROM generate_series(0, i.indnkeyatts - 1) AS k(place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.place])"""

# An index over an expression, over some of the rows, or that is checked later does not keep two merges from inserting one
# key; nor does one that holds other values equal than the merge does, or one of a table whose children it does not reach.
_UNIQUE_ON = f"""
SELECT {_NAMES_OF_KEY} FROM pg_index i
WHERE i.indrelid = to_regclass($1)
  AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate AND NOT i.indisexclusion
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (
    SELECT FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent WHERE p.oid = i.indrelid AND p.relkind <> 'p')
  AND NOT EXISTS (
    SELECT FROM generate_series(0, i.indnkeyatts - 1) AS k(place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.place]
    JOIN pg_opclass o ON o.oid = i.indclass[k.place]
    WHERE NOT o.opcdefault OR a.attcollation <> i.indcollation[k.place])"""


def has_key(session: Session, table: TableName, key: Sequence[str]) -> bool:
    """Whether a unique index keeps two transactions from inserting one key, each for itself."""
    found = session.execute(_UNIQUE_ON, (quote_table(table),))
    return any(sorted(json.loads(names)) == sorted(key) for (names,) in found)


def hold_merged(session: Session, table: TableName, key: Sequence[str]) -> None:
    """Lock a table for a merge: against other writers too, unless a unique index does what that would do.

    The lock is the first one taken: two transactions that both held a lesser one would wait for each other.

    Raises:
        NotFoundError: there is no such table.
        StoreUnavailableError: the index went away in between (`store.conflict`).
    """
    is_kept = has_key(session, table, key)
    mode = "ROW EXCLUSIVE" if is_kept else "SHARE ROW EXCLUSIVE"
    session.execute(f"LOCK TABLE {quote_table(table)} IN {mode} MODE")
    if is_kept and not has_key(session, table, key):
        raise StoreUnavailableError(f"The unique index of {table} was dropped meanwhile.", code="store.conflict")


def behind_others(session: Session, key: Sequence[str], merge: Callable[[], T]) -> T:
    """Run a merge, once more whenever another transaction has inserted one of its keys first.

    Each statement sees what was committed before it, so the next try finds that key and updates it.

    Raises:
        StoreUnavailableError: others were first again and again (`store.conflict`).
    """
    for _ in range(_ATTEMPTS):
        session.execute("SAVEPOINT headrace_merge")
        try:
            merged = merge()
        except PlatformError as error:
            index = _violated(error)
            if index is None:
                raise
            session.execute("ROLLBACK TO SAVEPOINT headrace_merge")
            if not _is_on(session, index, key):
                raise
        else:
            session.execute("RELEASE SAVEPOINT headrace_merge")
            return merged
    raise StoreUnavailableError("Others insert the keys of this batch again and again.", code="store.conflict")


def _violated(error: PlatformError) -> str | None:
    """The unique index, quoted, that a statement failed at."""
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) != "23505":
        return None
    told = {name.decode(): value.decode() for name, value in getattr(cause, "details", ())}
    schema, index = told.get("PG_DIAG_SCHEMA_NAME"), told.get("PG_DIAG_CONSTRAINT_NAME")
    return f"{quote(schema)}.{quote(index)}" if schema and index else None


def _is_on(session: Session, index: str, key: Sequence[str]) -> bool:
    """Whether an index, which may be that of a partition, is over exactly the key."""
    found = session.execute(
        f"SELECT {_NAMES_OF_KEY} FROM pg_index i WHERE i.indexrelid = to_regclass($1) "
        "AND i.indexprs IS NULL AND i.indpred IS NULL",
        (index,),
    )
    return bool(found) and sorted(json.loads(found[0][0])) == sorted(key)
