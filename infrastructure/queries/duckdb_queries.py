"""What users write for DuckDB, looked at where it is safe to: each text once."""

from functools import lru_cache

from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.queries.duckdb_reading import DuckDBQuery, read_query
from infrastructure.queries.duckdb_steps import DuckDBPredicate, DuckDBStep, read_predicate, read_step

_REMEMBERED = 128


class DuckDBQueries:
    """Queries, steps and conditions; what was refused is looked at again."""

    def __init__(self, calls: Calls | None = None) -> None:
        where = calls or InProcessBench()

        def query(text: str, names: frozenset[str] | None) -> DuckDBQuery:
            return where.call(read_query, text, names)

        def step(text: str) -> DuckDBStep:
            return where.call(read_step, text)

        def predicate(text: str) -> DuckDBPredicate:
            return where.call(read_predicate, text)

        self._query = lru_cache(_REMEMBERED)(query)
        self._step = lru_cache(_REMEMBERED)(step)
        self._predicate = lru_cache(_REMEMBERED)(predicate)

    def query(self, text: str, names: frozenset[str] | None = None) -> DuckDBQuery:
        """Look at a query; any parameter is one where no names are given.

        Raises:
            QueryRefusedError: it is not one SELECT that only reads what it may.
        """
        return self._query(text, names)

    def step(self, text: str) -> DuckDBStep:
        """Look at a step.

        Raises:
            InvalidInputError: it is not row-wise, not repeatable, or no query.
        """
        return self._step(text)

    def predicate(self, text: str) -> DuckDBPredicate:
        """Look at a condition.

        Raises:
            InvalidInputError: as `step`.
        """
        return self._predicate(text)


IN_PROCESS = DuckDBQueries()
"""For what has been looked at before, for processes apart, and for tests."""
