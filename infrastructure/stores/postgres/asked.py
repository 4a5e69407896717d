"""What a Postgres source answers to whoever plans a read of it."""

from domain.errors import InvalidInputError
from domain.pipelines.spec import SourceSpec
from domain.stores.table import Column
from infrastructure.sql import quote
from infrastructure.stores.postgres.keys import is_proved, why_untrusted
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.told import hidden_of


class PostgresAsked:
    """A source of a Postgres, in one snapshot; blocking."""

    def __init__(self, session: PostgresSession, source: SourceSpec) -> None:
        self._session = session
        self._source = source
        self._selection = Selection.of(session, source)
        self.columns = self._selection.columns

    def check_cursor(self, name: str) -> None:
        if self._session.execute(f"SELECT 1 FROM {self._selection.text} WHERE {quote(name)} IS NULL LIMIT 1"):
            raise InvalidInputError(f"The cursor column {name} holds NULL.", code="cursor.null")

    def limited(self, cursor: Column, lo: str | None, hi: str, limit: int) -> str:
        selection, session = self._selection, self._session
        where = selection.bounds(cursor.name, lo, hi)
        session.bind(selection.settings)
        rows = session.execute(
            f"SELECT {selection.text_of(cursor.name)} FROM (SELECT * FROM {selection.text}) AS selected WHERE {where} "
            f"ORDER BY selected.{quote(cursor.name)} LIMIT 1 OFFSET {limit:d}"
        )
        return rows[0][0] if rows else hi

    def is_proved(self) -> bool:
        return is_proved(self._session, self._source)

    def why_untrusted(self, lo: str | None, hi: str | None, *, looks_for_ties: bool) -> str | None:
        where = self._where(lo, hi)
        self._session.bind(self._selection.settings)
        return why_untrusted(self._session, self._source, self._selection, where, looks_for_ties=looks_for_ties)

    def extremes(self, column: Column, lo: str | None, hi: str | None) -> tuple[str | None, str | None]:
        name, where = quote(column.name), self._where(lo, hi)
        self._session.bind(self._selection.settings)
        # As text: not every time has a place in the driver's own type.
        ends = f"min({name})::text, max({name})::text"
        low, high = self._session.execute(f"SELECT {ends} FROM {self._selection.text} WHERE {where}")[0]
        return low, high

    def warnings(self) -> tuple[str, ...]:
        return hidden_of(self._session, self._source)

    def _where(self, lo: str | None, hi: str | None) -> str:
        cursor = self._source.cursor
        return self._selection.bounds(cursor.column, lo, hi) if cursor is not None else "true"
