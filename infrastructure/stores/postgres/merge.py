"""Merging by key on Postgres: what keeps a key unique, what is one key, and a merge that another one got ahead of."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from domain.errors import PlatformError, SchemaMismatchError, StoreUnavailableError
from domain.loads.checkpoint import Merged
from domain.pipelines.spec import Mode
from domain.ports.data_store import Target
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.exchange import Exchange
from infrastructure.stores.sql.merge import Merge, merged_by
from infrastructure.stores.sql.session import Session

_ATTEMPTS = 10
_NAMES_OF_KEY = """(
    SELECT json_agg(a.attname::text ORDER BY a.attname::text COLLATE "C")::text
    FROM generate_series(0, i.indnkeyatts - 1) AS k(place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.place])"""

# An index over an expression, over some of the rows, or that is checked later does not keep two merges from inserting
# one key; nor does one that holds other values equal than the merge does, or one of a table whose children it does not
# reach.
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

# Who would be refused an update of the key that they refer to, or would not refer to it any more.
_REFERRED_STRICTLY = """
SELECT k.conrelid::regclass::text, k.conname::text FROM pg_constraint k
WHERE k.contype = 'f' AND k.confrelid = to_regclass($1) AND k.conparentid = 0 AND k.confupdtype IN ('r', 'n', 'd') AND
EXISTS (
  SELECT FROM pg_attribute a WHERE a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey)
    AND a.attname IN (SELECT json_array_elements_text($2::json))) ORDER BY 1, 2"""

# Of these types two values are equal when they are written alike, as they come from Arrow; of a length is cut what is
# blank beyond it.
_ARE_EXACT = """
  (SELECT bool_and(coalesce(
     t.typname IN ('int2', 'int4', 'int8', 'bool', 'date', 'timestamp', 'timestamptz', 'time', 'bytea')
     OR (t.typname IN ('text', 'varchar') AND a.atttypmod = -1 AND c.collisdeterministic){others}, false))
   FROM json_array_elements_text($2::json) AS k(name)
   LEFT JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attname = k.name
   LEFT JOIN pg_type t ON t.oid = a.atttypid
   LEFT JOIN pg_collation c ON c.oid = a.attcollation)"""

# Where the letter case of a UUID does not count, and all numbers have the same places.
_ARE_TOLD = _ARE_EXACT.format(others=" OR t.typname = 'uuid' OR (t.typname = 'numeric' AND a.atttypmod <> -1)")

_FACTS = f"""
SELECT {_ARE_EXACT.format(others="")},
  (SELECT coalesce(json_agg(attname::text), '[]')::text FROM pg_attribute
   WHERE attrelid = to_regclass($1) AND attidentity = 'a' AND NOT attisdropped),
  current_setting('server_version_num')::int >= 170000"""


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


def merge(session: Session, using: str, names: Sequence[str], target: Target, *, is_batch: bool) -> Merged:
    """Merge what a FROM item gives into a held table: of each key, as the table holds keys equal, the last row.

    Raises:
        SchemaMismatchError: a row would get another number than the one the table gave it (`destination.identity`).
    """
    merging, can_count = _merge_of(session, using, names, target, is_batch=is_batch)
    repeated = merging.repeated(session)
    if not can_count:
        behind_others(session, merging, merging.statement)
        return Merged(repeated=repeated, is_counted=False)
    counted = (
        f"WITH merged AS ({merging.statement} RETURNING merge_action() AS action) "
        "SELECT action, count(*) FROM merged GROUP BY action"
    )
    actions, gone = behind_others(session, merging, counted)
    merged = merged_by(actions, repeated)
    return replace(merged, deleted=merged.deleted + gone)


def are_told(session: Session, target: Target) -> bool:
    """Whether two keys of a table are equal only when they are written alike."""
    [(are_so,)] = session.execute(f"SELECT {_ARE_TOLD}", (quote_table(target.table), json.dumps(target.key)))
    return bool(are_so)


def merge_whole(session: Session, using: str, names: Sequence[str], table: TableName, key: Sequence[str]) -> None:
    """Merge rows, one for each key, into a table that is not merged into otherwise.

    Raises:
        SchemaMismatchError: as in merging otherwise.
    """
    target = Target(table, Mode.MERGE, None, (), "", metadata_columns=False, key=tuple(key))
    merging, _ = _merge_of(session, using, names, target, is_whole=True)
    behind_others(session, merging, merging.statement)


def _merge_of(
    session: Session,
    using: str,
    names: Sequence[str],
    target: Target,
    *,
    is_batch: bool = False,
    is_whole: bool = False,
) -> tuple[Merge, bool]:
    """The merge that a table allows, and whether the server can count what it does."""
    is_exact, numbered, can_count = session.execute(_FACTS, (quote_table(target.table), json.dumps(target.key)))[0]
    merging = Merge(
        using,
        names,
        target,
        is_exact=is_exact,
        is_batch=is_batch,
        is_whole=is_whole,
        numbered=[name for name in json.loads(numbered) if name in names],
        overriding=session.overriding,
    )
    _check_numbers(session, merging)
    if not is_exact:
        _check_spellings(session, merging)
    return merging, can_count


def _check_spellings(session: Session, merging: Merge) -> None:
    """A key that is written in another way is an update to those who refer to it, who may lose their reference by it.

    Raises:
        SchemaMismatchError: they would (`destination.referred`).
    """
    table, key = merging.target.table, merging.target.key
    referring = session.execute(_REFERRED_STRICTLY, (quote_table(table), json.dumps(key)))
    if not referring:
        return
    spelled = [f"ROW({', '.join(f'{side}.{quote(name)}' for name in key)})" for side in ("target", "source")]
    found = f"SELECT 1 FROM {quote_table(table)} AS target JOIN {merging.rows} AS source ON {merging.on}"
    if session.execute(f"{found} WHERE record_image_ne({', '.join(spelled)}) LIMIT 1"):
        other, constraint = referring[0]
        raise SchemaMismatchError(
            f"A row of {table} comes with its key ({', '.join(key)}) written in another way, and {other} refers to it "
            f"by {constraint}, which would refuse that or forget the row: make it ON UPDATE CASCADE or NO ACTION.",
            code="destination.referred",
        )


def _check_numbers(session: Session, merging: Merge) -> None:
    """A number that the table always gives by itself cannot be updated, only inserted."""
    numbered = [name for name in merging.numbered if name not in merging.target.key]
    if not numbered:
        return
    other = " OR ".join(f"target.{quote(name)} IS DISTINCT FROM source.{quote(name)}" for name in numbered)
    found = f"SELECT 1 FROM {quote_table(merging.target.table)} AS target JOIN {merging.rows} AS source ON {merging.on}"
    if session.execute(f"{found} WHERE {other} LIMIT 1"):
        name = ", ".join(numbered)
        raise SchemaMismatchError(
            f"A row of {merging.target.table} has another {name} than the source, and the column is GENERATED ALWAYS "
            f"AS IDENTITY: ALTER TABLE … ALTER COLUMN {name} SET GENERATED BY DEFAULT, or leave the column out.",
            code="destination.identity",
        )


def behind_others(session: Session, merging: Merge, statement: str) -> tuple[list[tuple[Any, ...]], int]:
    """Run a merge, once more whenever another transaction has inserted one of its keys first, and once more after its
    rows have made way for each other; return its answer, and how many rows were deleted before it.

    Each statement sees what was committed before it, so the next try finds that key and updates it.

    Raises:
        StoreUnavailableError: others were first again and again (`store.conflict`).
        SchemaMismatchError: the rows together violate a constraint (`destination.constraint`), or cannot make way.
    """
    has_made_way, gone = False, 0
    for _ in range(_ATTEMPTS):
        session.execute("SAVEPOINT headrace_merge")
        try:
            answer = session.execute(statement)
        except PlatformError as error:
            index = _violated(error)
            if index is None:
                raise
            session.execute("ROLLBACK TO SAVEPOINT headrace_merge")
            if _is_on(session, index, merging.target.key):
                continue
            way = None if has_made_way else Exchange.of(session, merging).make_way()
            if way is None:
                raise _together(error, merging) from error
            has_made_way, gone = True, way
        else:
            session.execute("RELEASE SAVEPOINT headrace_merge")
            return answer, gone
    raise StoreUnavailableError("Others insert the keys of this batch again and again.", code="store.conflict")


def _together(error: PlatformError, merging: Merge) -> PlatformError:
    """Tell of a violation that may be due to where a batch ends."""
    if not (merging.is_batch and isinstance(error, SchemaMismatchError)):
        return error
    return SchemaMismatchError(
        f"{error.message} Rows that pass such a value on have to land together: leave publish out, or say publish: "
        "run.",
        code=error.code,
    )


def _violated(error: PlatformError) -> str | None:
    """The unique index or exclusion constraint, quoted, that a statement failed at."""
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) not in ("23505", "23P01"):
        return None
    told = {name.decode(): value.decode() for name, value in getattr(cause, "details", ())}
    schema, index = told.get("PG_DIAG_SCHEMA_NAME"), told.get("PG_DIAG_CONSTRAINT_NAME")
    return f"{quote(schema)}.{quote(index)}" if schema and index else None


def _is_on(session: Session, index: str, key: Sequence[str]) -> bool:
    """Whether an index, which may be that of a partition, is over exactly the key."""
    found = session.execute(
        f"SELECT {_NAMES_OF_KEY} FROM pg_index i WHERE i.indexrelid = to_regclass($1) "
        "AND NOT i.indisexclusion AND i.indexprs IS NULL AND i.indpred IS NULL",
        (index,),
    )
    return bool(found) and sorted(json.loads(found[0][0])) == sorted(key)
