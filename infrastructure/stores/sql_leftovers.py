"""What a read set has made at the destination and nothing landed in: it goes again when the run ends without success."""

from domain.pipelines.checkpoint import LaneState
from domain.pipelines.read_set import Lane
from domain.pipelines.table import TableName
from infrastructure.sql import quote_table
from infrastructure.stores.landing import leftovers
from infrastructure.stores.sql_session import OWNER, Session


def drop_leftovers(session: Session, state: LaneState, lane: Lane, table: TableName) -> None:
    """Drop the stage from which nobody can go on, and the table if this lane made it, it is empty, and no other writes it."""
    left = leftovers(state)
    if left.stage is not None:
        session.execute(f"DROP TABLE IF EXISTS {quote_table(table.beside(left.stage))}")
    if not left.has_made_table or session.describe(table) is None:
        return
    owners = session.execute(
        f'SELECT "org", "pipeline" FROM {quote_table(table.beside(OWNER))} WHERE "table" = $1', (table.table,)
    )
    if any(tuple(owner) != (lane.organization, lane.pipeline) for owner in owners):
        return
    session.lock_table(quote_table(table))  # Nobody writes to it between the look and the drop.
    if not session.execute(f"SELECT 1 FROM {quote_table(table)} LIMIT 1"):
        session.execute(f"DROP TABLE {quote_table(table)}")
