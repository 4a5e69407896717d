"""Tables that go: what a read set has made and nothing landed in, and the table that one with other types replaces."""

from domain.errors import SchemaMismatchError
from domain.loads.checkpoint import LaneState
from domain.loads.publication import leftovers
from domain.ports.data_store import Target
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.sql import quote_table
from infrastructure.stores.sql.names import writers_of
from infrastructure.stores.sql.session import Session


def drop_leftovers(session: Session, state: LaneState, lane: Lane, table: TableName) -> None:
    """Drop the stage from which nobody can go on, and the table if this lane made it, it is empty, and no other writes
    it.
    """
    left = leftovers(state)
    if left.stage is not None:
        session.execute(f"DROP TABLE IF EXISTS {quote_table(table.beside(left.stage))}")
    if not left.has_made_table or session.describe(table) is None:
        return
    if any(writer[:2] != (lane.organization, lane.pipeline) for writer in writers_of(session, table)):
        return
    session.lock_table(quote_table(table))  # Nobody writes to it between the look and the drop.
    if not session.execute(f"SELECT 1 FROM {quote_table(table)} LIMIT 1"):
        session.execute(f"DROP TABLE {quote_table(table)}")


def drop_rebuilt(session: Session, target: Target) -> None:
    """Drop the table that makes way for one with other types, unless something has come to hang on it.

    Raises:
        SchemaMismatchError: it has (`schema.types_kept`).
    """
    existing = session.describe_bound(target.table)
    if existing is None:
        return
    if not existing.may_be_rebuilt(target.key):
        raise SchemaMismatchError(
            f"Other things hang on the table {target.table} by now, so it keeps its types: drop them, or change the "
            "types of its columns.",
            code="schema.types_kept",
        )
    session.execute(f"DROP TABLE {quote_table(target.table)}")
