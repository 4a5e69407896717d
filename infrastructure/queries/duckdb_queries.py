"""What users write for DuckDB, looked at where it is safe to: each text once."""

from collections import OrderedDict
from functools import lru_cache
from hashlib import sha256

from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.queries.duckdb_planning import Planned, plan_names, plan_query
from infrastructure.queries.duckdb_reading import DuckDBQuery, read_query
from infrastructure.queries.duckdb_relations import Held, judge_held
from infrastructure.queries.duckdb_steps import DuckDBPredicate, DuckDBStep, read_predicate, read_step
from infrastructure.queries.duckdb_views import plan_relations, planned_relations

_REMEMBERED = 128
_AT_A_TIME = 50


class DuckDBQueries:
    """Queries, steps and conditions; what was refused is looked at again."""

    def __init__(self, calls: Calls | None = None) -> None:
        where = self._where = calls or InProcessBench()
        self._planned = OrderedDict[bytes, tuple[str, str] | None]()

        def query(text: str, names: frozenset[str] | None) -> DuckDBQuery:
            return where.call(read_query, text, names)

        def step(text: str) -> DuckDBStep:
            return where.call(read_step, text)

        def predicate(text: str) -> DuckDBPredicate:
            return where.call(read_predicate, text)

        def held(text: str, held: Held) -> bool:
            return where.call(judge_held, text, held)

        self._held = lru_cache(_REMEMBERED)(held)
        self._query = lru_cache(_REMEMBERED)(query)
        self._step = lru_cache(_REMEMBERED)(step)
        self._predicate = lru_cache(_REMEMBERED)(predicate)

    def query(self, text: str, names: frozenset[str] | None = None) -> DuckDBQuery:
        """Look at a query; any parameter is one where no names are given.

        Raises:
            QueryRefusedError: it is not one SELECT that only reads what it may.
        """
        return self._query(text, names)

    def plan(self, planned: Planned, *, may_double: bool = False) -> tuple[str, str] | None:
        """Plan a query on empty tables, once for each of its texts, parameters and tables' columns; give two columns of
        one name in a query within it, if there are any that it uses.

        Raises:
            InvalidInputError: that takes too much (`query.too_large`).
        """
        key = sha256(repr(planned).encode("utf-8", "surrogatepass")).digest()  # The columns may be many.
        if key not in self._planned:
            self._where.call(plan_query, planned)
            self._planned[key] = self._where.call(plan_names, planned) if may_double else None
            if len(self._planned) > _REMEMBERED:
                self._planned.popitem(last=False)
        return self._planned[key]

    def plan_file(self, path: str) -> None:
        """Plan reading all views of a file, which nobody has open.

        Raises:
            InvalidInputError: that takes too much (`query.too_large`).
        """
        names = self._where.call(planned_relations, path)
        for begin in range(0, len(names), _AT_A_TIME):
            self._where.call(plan_relations, path, names[begin : begin + _AT_A_TIME])

    def check_held(self, text: str, held: Held) -> None:
        """Look at what a query reads, where the file works it out itself.

        Raises:
            QueryRefusedError, InvalidInputError: it makes too much (`query.too_large`).
        """
        self._held(text, held)

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
