"""Merging by key in SQL: the one statement that updates, inserts and deletes, and what a full read no longer has."""

from collections.abc import Sequence
from datetime import datetime

from domain.errors import QualityRejectedError
from domain.pipelines.spec import DeleteMissing
from domain.pipelines.table import DELETED, DELETED_AT, INTERNAL_PREFIX, LOADED_AT, RUN_ID, SEQ
from domain.ports.data_store import Target
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.sql_session import Session

_PLACE = f"{INTERNAL_PREFIX}_place"


def merge_statement(using: str, names: Sequence[str], target: Target) -> str:
    """Merge rows, of which each key has one, into the target's table.

    `using` is a FROM item with the columns `names` (and whether the row is deleted). A row that is there again is not
    marked as missing any more.
    """
    table, key, deletes = quote_table(target.table), target.key, target.deletes
    on = " AND ".join(f"target.{quote(name)} = source.{quote(name)}" for name in key)
    changed = [f"{quote(name)} = source.{quote(name)}" for name in names if name not in key]
    if target.delete_missing is DeleteMissing.SOFT:
        changed.append(f"{quote(DELETED_AT)} = NULL")
    inserted = ", ".join(quote(name) for name in names)
    values = ", ".join(f"source.{quote(name)}" for name in names)
    order = ", ".join(quote(name) for name in key)
    # In the order of the key, so that two merges wait for each other's rows in one direction only.
    parts = [f"MERGE INTO {table} AS target USING (SELECT * FROM {using} ORDER BY {order}) AS source ON {on}"]
    if target.newest_by is not None:
        newest_by = quote(target.newest_by)
        parts.append(f"WHEN MATCHED AND target.{newest_by} > source.{newest_by} THEN DO NOTHING")
    if deletes:
        parts.append(f"WHEN MATCHED AND source.{quote(DELETED)} THEN DELETE")
    if changed:
        parts.append(f"WHEN MATCHED THEN UPDATE SET {', '.join(changed)}")
    living = f" AND NOT source.{quote(DELETED)}" if deletes else ""
    parts.append(f"WHEN NOT MATCHED{living} THEN INSERT ({inserted}) VALUES ({values})")
    return " ".join(parts)


def merge_stage(session: Session, target: Target, names: Sequence[str], loaded_at: datetime) -> int:
    """Merge a staging table into its target; return how many staged rows were not the last of their key.

    Raises:
        QualityRejectedError: `delete_missing` would reach more than its share (`delete_missing.share`).
    """
    assert target.shadow is not None
    stage, table = quote_table(target.table.beside(target.shadow)), quote_table(target.table)
    session.execute(f"ANALYZE {stage}")
    key = ", ".join(quote(name) for name in target.key)
    staged, kept = session.execute(
        f"SELECT (SELECT count(*) FROM {stage}), (SELECT count(*) FROM (SELECT DISTINCT {key} FROM {stage}) AS keys)"
    )[0]
    moment, names = f"CAST('{loaded_at.isoformat()}' AS {session.type_name('timestamptz')})", list(names)
    columns = ", ".join(quote(name) for name in names)
    if target.metadata_columns:
        columns += f", {moment} AS {quote(LOADED_AT)}"
        names.append(LOADED_AT)
    if target.deletes:
        columns += f", {quote(DELETED)}"
    place = f"row_number() OVER (PARTITION BY {key} ORDER BY {quote(SEQ)} DESC)"
    placed = f"SELECT *, {place} AS {quote(_PLACE)} FROM {stage}"
    last = f"(SELECT {columns} FROM ({placed}) AS placed WHERE {quote(_PLACE)} = 1) AS last"
    if session.hold(target.table, target.key) is None:
        raise landing_gone(target.table)
    if target.replaces:
        session.execute(f"DELETE FROM {table}")
    elif target.delete_missing is not None:
        _delete_missing(session, target, moment)
    session.merge_from(last, names, target)
    session.execute(f"DROP TABLE {stage}")
    return int(staged) - int(kept)


def _delete_missing(session: Session, target: Target, moment: str) -> None:
    """Delete or mark the rows whose key the run did not read, by an anti-join over the keys alone."""
    assert target.shadow is not None
    stage, table = quote_table(target.table.beside(target.shadow)), quote_table(target.table)
    same = " AND ".join(f"staged.{quote(name)} = target.{quote(name)}" for name in target.key)
    # Always a condition of WHERE: there it is an anti-join, and anywhere else a query for each row.
    missing = f"NOT EXISTS (SELECT 1 FROM {stage} AS staged WHERE {same})"
    is_soft = target.delete_missing is DeleteMissing.SOFT
    living = f"target.{quote(DELETED_AT)} IS NULL" if is_soft else "true"
    there, gone = session.execute(
        f"SELECT (SELECT count(*) FROM {table} AS target WHERE {living}), "
        f"(SELECT count(*) FROM {table} AS target WHERE {living} AND {missing})"
    )[0]
    if gone > target.max_deleted_share * there:
        raise too_many_missing(int(gone), int(there), target.max_deleted_share)
    if is_soft:
        marked = f"{quote(DELETED_AT)} = {moment}"
        session.execute(f"UPDATE {table} AS target SET {marked} WHERE {living} AND {missing}")
    else:
        session.execute(f"DELETE FROM {table} AS target WHERE {missing}")


def too_many_missing(gone: int, there: int, share: float) -> QualityRejectedError:
    """Say that a full read lacks more keys than it may."""
    return QualityRejectedError(
        f"{gone:,} of {there:,} rows of the destination are missing in the source, more than max_deleted_share "
        f"({share:g}) allows; nothing of the run was published. Look at the source, or raise the share.",
        code="delete_missing.share",
    )


def merged_names(target: Target) -> list[str]:
    """The staged columns that go into the table."""
    names = [column.name for column in target.columns]
    return [*names, RUN_ID] if target.metadata_columns else names
