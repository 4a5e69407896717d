"""IQueryGuard on sqlglot: refuses early, at the door; each store checks again in its own dialect."""

from collections import OrderedDict

from domain.errors import InvalidInputError, QueryRefusedError
from domain.ports.security import IQueryGuard
from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.sql import check_row_predicate, parse_query, relations_of, row_wise

_DIALECTS = ("postgres", "duckdb")
_REMEMBERED = 1000


class SqlQueryGuard(IQueryGuard):
    """A query is let through when it is a read in a dialect that some store speaks. All of it is looked at on a bench."""

    def __init__(self, bench: Calls | None = None) -> None:
        self._bench = bench or InProcessBench()
        self._relations: OrderedDict[str, frozenset[str]] = OrderedDict()

    async def check_source(self, query: str) -> None:
        await self._bench.acall(judge_source, query)

    async def relations(self, query: str) -> frozenset[str]:
        # Whoever stores a pipeline has all others looked at too.
        found = self._relations.get(query)
        if found is None:
            try:
                found = await self._bench.acall(relations_read, query)
            except InvalidInputError:
                found = frozenset()
            self._relations[query] = found
            if len(self._relations) > _REMEMBERED:
                self._relations.popitem(last=False)
        return found

    async def check_transform(self, sql: str) -> None:
        await self._bench.acall(row_wise, sql)

    async def check_predicate(self, expression: str) -> None:
        await self._bench.acall(check_row_predicate, expression)


def judge_source(query: str) -> None:
    """Check a source query.

    Raises:
        QueryRefusedError: it is a read in no dialect.
    """
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


def relations_read(query: str) -> frozenset[str]:
    """Name the tables that a query reads; none if it cannot be parsed."""
    for dialect in _DIALECTS:
        try:
            return relations_of(query, dialect)
        except QueryRefusedError:
            continue
    return frozenset()
