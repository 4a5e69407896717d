"""What a Postgres tells of a source beside its rows."""

from domain.loads.way import Wire
from domain.pipelines.spec import SourceSpec
from infrastructure.sql import quote
from infrastructure.stores.postgres.capabilities import FORMAT
from infrastructure.stores.postgres.catalog import foreign
from infrastructure.stores.postgres.hiding import hidden_at
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession


def hidden_of(session: PostgresSession, source: SourceSpec) -> tuple[str, ...]:
    """Say what rows of a source, which has just been selected, are hidden from this role."""
    names = [source.table.table] if source.table is not None else []
    if source.query is not None:
        names = [name for _, name in session.queries.analyzed(source.query, session.trusted_schemas).relations]
    session.use_own_path()  # Names are shown as the role writes them.
    return hidden_at(session, names)


def wire_of(session: PostgresSession, source: SourceSpec) -> Wire:
    """The form in which the rows of a source are read undecoded."""
    selection = Selection.of(session, source)
    own = foreign(session, selection.natives.values())
    is_seekable = False
    if source.order and all(name in selection.natives for name in source.order):
        keys = ", ".join(f"selected.{quote(name)}" for name in source.order)
        seek = f"SELECT 1 FROM (SELECT * FROM {selection.text}) AS selected ORDER BY {keys} LIMIT 1"
        is_seekable = not session.sorts(seek)
    types = {name: None if native in own else native for name, native in selection.natives.items()}
    return Wire(FORMAT, types, is_seekable)
