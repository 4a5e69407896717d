"""Rows landed as the table shows them, looked at where something in the database may hide or suppress rows."""

from dataclasses import replace

from domain.loads.read_set import ReadSet
from domain.ports.data_store import Target
from domain.quality.measures import Counts, LandedRows, Measures
from domain.stores.table import RUN_ID
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.session import Session


def with_landed(session: Session, target: Target, read_set: ReadSet, counts: Counts, measures: Measures) -> Measures:
    """Add how many rows were written and how many of them the table shows; None where that cannot be counted."""
    if not session.may_suppress(target.table):
        return measures
    written, shown = counts.produced - counts.deduplicated, None
    if target.merges:
        # A key may come in several batches, so its rows are not those of the table: the merge itself tells what it did.
        done = measures.merged
        if done is not None and not target.deletes and target.newest_by is None:
            shown = done.inserted + done.updated
    elif target.metadata_columns and not (read_set.is_adopted or read_set.completed_first):
        # Of an earlier run's rows this one knows no name, and after them its own have had the same.
        rows = session.execute(
            f"SELECT count(*) FROM {quote_table(target.table)} WHERE {quote(RUN_ID)} = CAST($1 AS "
            f"{session.type_name('uuid')})",
            (target.run_id,),
        )
        shown = int(rows[0][0])
    hides = target.merges and session.may_hide(target.table)
    return replace(measures, landed=LandedRows(written, shown, hides))
