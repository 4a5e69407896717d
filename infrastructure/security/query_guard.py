"""IQueryGuard on sqlglot: refuses early, at the door; each store checks again in its own dialect."""

from domain.errors import QueryRefusedError
from domain.ports.security import IQueryGuard
from infrastructure.sql import check_row_predicate, parse_query, relations_of, row_wise

_DIALECTS = ("postgres", "duckdb")


class SqlQueryGuard(IQueryGuard):
    """A query is let through when it is a read in a dialect that some store speaks."""

    def check_source(self, query: str) -> None:
        first: QueryRefusedError | None = None
        for dialect in _DIALECTS:
            try:
                parse_query(query, dialect)
            except QueryRefusedError as error:
                first = first or error
            else:
                return
        if first is not None:
            raise first

    def relations(self, query: str) -> frozenset[str]:
        for dialect in _DIALECTS:
            try:
                return relations_of(query, dialect)
            except QueryRefusedError:
                continue
        return frozenset()

    def check_transform(self, sql: str) -> None:
        row_wise(sql)

    def check_predicate(self, expression: str) -> None:
        check_row_predicate(expression)
