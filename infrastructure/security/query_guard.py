"""IQueryGuard: refuses early, at the door; each store checks again what it runs, with what its catalog says."""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable

from domain.errors import InvalidInputError, MissingExtraError, QueryRefusedError
from domain.ports.security import Cost, IQueryGuard
from domain.stores.connection import ConnectionSpec
from domain.stores.kinds import DUCKDB, POSTGRES
from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.queries.duckdb_reading import read_query
from infrastructure.queries.duckdb_steps import read_predicate, read_step
from infrastructure.queries.postgres_query import analyzed

_REMEMBERED = 20_000


class SqlQueryGuard(IQueryGuard):
    """A query is let through when it is a read for the engine of its connection, or of some store where that is not
    known. All of it is looked at on a bench.
    """

    def __init__(self, bench: Calls | None = None) -> None:
        self._bench = bench or InProcessBench()
        self._relations: OrderedDict[bytes, frozenset[str]] = OrderedDict()

    def counting(self, cost: Cost) -> "SqlQueryGuard":
        counting = copy.copy(self)  # What is remembered is remembered for all.
        counting._bench = self._bench.counting(cost)
        return counting

    async def check_source(self, query: str, connection: ConnectionSpec | None = None) -> None:
        kind = connection.kind if connection is not None else None
        trusted = None
        if connection is not None and kind == POSTGRES.name:
            trusted = tuple(connection.options.get("trusted_schemas") or ())
        await self._bench.acall(judge_source, query, kind, trusted)

    async def relations(self, query: str) -> frozenset[str]:
        # Whoever stores a pipeline has all others looked at too.
        name = hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()
        found = self._relations.get(name)
        if found is None:
            try:
                found = await self._bench.acall(relations_read, query)
            except InvalidInputError:
                found = frozenset()
            self._relations[name] = found
            if len(self._relations) > _REMEMBERED:
                self._relations.popitem(last=False)
        return found

    async def check_transform(self, sql: str) -> None:
        await self._bench.acall(read_step, sql)

    async def check_predicate(self, expression: str) -> None:
        await self._bench.acall(read_predicate, expression)


def judge_source(query: str, kind: str | None = None, trusted: tuple[str, ...] | None = None) -> None:
    """Check a source query of a store of a kind, or of some store; `trusted` are the schemas that its connection
    trusts.

    Raises:
        QueryRefusedError: it is no read that the store would run.
    """
    checks: dict[str, Callable[[], object]] = {
        POSTGRES.name: lambda: analyzed(query, trusted),
        DUCKDB.name: lambda: read_query(query),
    }
    refusals = dict[str, QueryRefusedError]()
    for engine, check in checks.items():
        try:
            check()
        except QueryRefusedError as error:
            refusals[engine] = error
        except MissingExtraError:  # Then no store is one of that engine.
            if engine == kind:
                raise
        else:
            if kind not in checks or engine == kind:
                return
    # What one engine cannot read at all is told in the words of the other; of a known one, only that it is no read.
    told = [refusals.pop(kind)] if kind in refusals else list(refusals.values())
    if kind in checks and told[0].code == "query.unparsable":
        told += [error for error in refusals.values() if error.code == "query.not_readonly"]
    raise next((error for error in told if error.code != "query.unparsable"), told[0])


def relations_read(query: str) -> frozenset[str]:
    """Name the tables that a query reads; none if it cannot be parsed."""
    try:
        return frozenset(f"{schema}.{name}" if schema else name for schema, name in analyzed(query).relations)
    except (InvalidInputError, MissingExtraError):
        pass
    try:
        return frozenset(".".join(path[-2:]) for path in read_query(query).relations)
    except QueryRefusedError:
        return frozenset()
