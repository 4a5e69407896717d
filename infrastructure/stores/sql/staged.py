"""Putting what is staged into its table, and what is counted in it for rules over a whole run, in SQL."""

from dataclasses import replace

from domain.errors import ConflictError
from domain.loads.publication import MISSING_UNKNOWN, Finished
from domain.ports.data_store import Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Reference
from domain.stores.table import LOADED_AT
from infrastructure.clock import utc_now
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landed_columns
from infrastructure.stores.sql.leftovers import drop_rebuilt
from infrastructure.stores.sql.merge import merge_stage, merged_names
from infrastructure.stores.sql.session import OWNER, Session, create_target


def put_in_place(session: Session, target: Target, finished: Finished) -> tuple[Counts, Measures]:
    """Move what is staged into the table; return the counts and measures with what that did."""
    counts, measures = finished.lane.counts, finished.measures
    if target.rebuilds:
        drop_rebuilt(session, target)
    if not target.shadow:
        return counts, measures
    is_new = _is_new(session, target)
    if not target.merges:
        _publish_stage(session, replace(target, replaces=target.replaces or is_new))
        return counts, measures
    if is_new:
        create_target(session, target)
    if target.delete_missing is not None and not finished.knows_what_is_missing:
        target, measures = replace(target, delete_missing=None), replace(measures, delete_missing=MISSING_UNKNOWN)
    merged = merge_stage(session, target, merged_names(target), utc_now())
    return counts + merged.counts, measures + merged.measures


def _is_new(session: Session, target: Target) -> bool:
    """Say whether there is no table yet; then nobody else makes one before this transaction ends."""
    if session.describe(target.table) is not None:
        return False
    session.lock_table(quote_table(target.table.beside(OWNER)))
    return session.describe(target.table) is None


def count_duplicates(session: Session, target: Target, columns: tuple[str, ...]) -> int:
    """Count the staged rows that are not the first with their values."""
    if target.shadow is None:
        raise ConflictError("A unique rule needs a staging table.", code="run.no_staging")
    stage = quote_table(target.table.beside(target.shadow))
    names = ", ".join(quote(name) for name in columns)
    rows = session.execute(
        f"SELECT coalesce(sum(_headrace_count - 1), 0) "
        f"FROM (SELECT count(*) AS _headrace_count FROM {stage} GROUP BY {names}) AS groups"
    )
    return int(rows[0][0])


def count_dangling(session: Session, target: Target, reference: Reference) -> int:
    """Count the staged rows whose value the other table does not have."""
    if target.shadow is None:
        raise ConflictError("A references rule needs a staging table.", code="run.no_staging")
    session.refuse_reserved(reference.table)
    stage, column = quote_table(target.table.beside(target.shadow)), f"staged.{quote(reference.column)}"
    found = f"SELECT 1 FROM {quote_table(reference.table)} AS other WHERE other.{quote(reference.other)} = {column}"
    rows = session.execute(
        f"SELECT count(*) FROM {stage} AS staged WHERE {column} IS NOT NULL AND NOT EXISTS ({found})"
    )
    return int(rows[0][0])


def _publish_stage(session: Session, target: Target) -> None:
    """Move the staged rows; the time of loading is the time of publishing, as readers saw nothing before."""
    assert target.shadow is not None
    stage = target.table.beside(target.shadow)
    names = ", ".join(quote(name) for name in merged_names(target))
    loaded_at = utc_now()
    if target.replaces:
        if target.metadata_columns:
            kind = session.type_name("timestamptz")
            column = f"{quote_table(stage)} ADD COLUMN {quote(LOADED_AT)} {kind}"
            session.execute(f"ALTER TABLE {column} DEFAULT '{loaded_at.isoformat()}'")
            session.execute(f"ALTER TABLE {quote_table(stage)} ALTER COLUMN {quote(LOADED_AT)} DROP DEFAULT")
        session.swap(stage, target.table, [column.name for column in landed_columns(target)])
        return
    table = quote_table(target.table)
    if target.metadata_columns:
        session.execute(
            f"INSERT INTO {table} ({names}, {quote(LOADED_AT)}){session.overriding} "
            f"SELECT {names}, CAST($1 AS {session.type_name('timestamptz')}) FROM {quote_table(stage)}",
            (loaded_at.isoformat(),),
        )
    else:
        session.execute(f"INSERT INTO {table} ({names}){session.overriding} SELECT {names} FROM {quote_table(stage)}")
    session.execute(f"DROP TABLE {quote_table(stage)}")
