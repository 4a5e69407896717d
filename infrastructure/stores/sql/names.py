"""A table by all its names: who writes it, and where rows that were meant for it are kept."""

from domain.stores.table import TableName
from infrastructure.sql import quote_table
from infrastructure.stores.sql.session import OWNER, QUARANTINE, Session


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
