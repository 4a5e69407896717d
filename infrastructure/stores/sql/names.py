"""A table by all its names: who writes it, or has deleted from it, and where rows that were meant for it are kept."""

from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.session import DELETES, OWNER, QUARANTINE, Session


def quarantines(session: Session, table: TableName) -> list[str]:
    """The quarantines that may have refused rows of a table, its own first."""
    return [quote_table(name.beside(QUARANTINE)) for name in session.names(table)]


def writers_of(session: Session, table: TableName) -> list[tuple[str, str, str]]:
    """Organization, pipeline and mode of each pipeline that writes a table, once for each name that it has there."""
    return [
        (organization, pipeline, mode)
        for name in session.names(table)
        for organization, pipeline, mode in session.execute(
            f'SELECT "org", "pipeline", "mode" FROM {quote_table(name.beside(OWNER))} WHERE {session.owned}',
            (name.table,),
        )
    ]


def deletions_of(session: Session, table: TableName) -> list[tuple[tuple[str, str], str | None]]:
    """What is noted of each pipeline that writes a table, by organization and name, once for each name of the table."""
    found = []
    for name in session.names(table):
        owners = name.beside(OWNER)
        # Beside its other names the tables may still be those of an earlier version.
        held = session.describe(owners) if name != table else None
        told = "CAST(NULL AS TEXT)" if held is not None and not held.has(DELETES.name) else quote(DELETES.name)
        rows = session.execute(
            f'SELECT "org", "pipeline", {told} FROM {quote_table(owners)} WHERE {session.owned}', (name.table,)
        )
        found += [((organization, pipeline), deletes) for organization, pipeline, deletes in rows]
    return found
