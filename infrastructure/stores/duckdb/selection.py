"""What a DuckDB source selects: a FROM item with bound parameters, and the conditions of a read set and a stream."""

from collections.abc import Mapping
from typing import Any

from domain.errors import InvalidInputError
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from infrastructure.queries.duckdb_placeholders import PREFIX
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.queries.duckdb_reading import DuckDBQuery
from infrastructure.sql import quote, quote_table
from infrastructure.tabular.duckdb_types import native_of


def from_item(source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> tuple[str, dict[str, Any]]:
    """Give the source as a FROM item with its bound parameters."""
    if source.table is not None:
        return quote_table(source.table), {}
    if source.query is None:
        raise InvalidInputError("A DuckDB source names a table or a query.", code="source.kind")
    query = looked_at(source, queries)
    return f"(\n{query.text}\n) AS source", {f"{PREFIX}{name}": source.parameters[name] for name in query.parameters}


def looked_at(source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> DuckDBQuery:
    """Look at the query of a source.

    Raises:
        QueryRefusedError: it is not one SELECT that only reads what it may.
    """
    return queries.query(source.query or "", frozenset(source.parameters))


def plain_relations(source: SourceSpec, queries: DuckDBQueries = IN_PROCESS) -> frozenset[str] | None:
    """The tables of a source that is nothing but columns, literals, comparisons and built-in casts; None
    for any other.
    """
    if source.table is not None:
        return frozenset({quote_table(source.table)})
    if source.query is None:
        return None
    query = looked_at(source, queries)
    if not query.is_plain or any(len(path) > 2 for path in query.relations):
        return None
    return frozenset(".".join(f'"{part}"' for part in path) for path in query.relations)


def bounds(column: str, kind: str, lo: str | None, hi: str | None) -> tuple[str, dict[str, Any]]:
    """Say `lo <= cursor < hi`, either side open when None."""
    conditions, bound = ["true"], {}
    if lo is not None:
        conditions.append(f"{quote(column)} >= CAST($lo AS {native_of(kind)})")
        bound["lo"] = lo
    if hi is not None:
        conditions.append(f"{quote(column)} < CAST($hi AS {native_of(kind)})")
        bound["hi"] = hi
    return " AND ".join(conditions), bound


def within(plan: SourcePlan, stream: Stream) -> tuple[str, dict[str, Any]]:
    """Say that a row belongs to a stream."""
    if plan.partition is None or (stream.lower is None and stream.upper is None):
        return "true", {}
    name, kind = quote(plan.partition), native_of(dict(plan.columns)[plan.partition])
    conditions, bound = [], {}
    if stream.lower is not None:
        conditions.append(f"{name} >= CAST($lower AS {kind})")
        bound["lower"] = stream.lower
    if stream.upper is not None:
        conditions.append(f"{name} < CAST($upper AS {kind})")
        bound["upper"] = stream.upper
    text = " AND ".join(conditions)
    return (text if stream.lower is not None else f"({text} OR {name} IS NULL)"), bound


def bounds_of(source: SourceSpec, plan: SourcePlan) -> tuple[str, dict[str, Any]]:
    """Say that a row belongs to a read set."""
    if source.cursor is None:
        return "true", {}
    return bounds(source.cursor.column, dict(plan.columns)[source.cursor.column], plan.lo, plan.hi)


def belonging(
    source: SourceSpec,
    plan: SourcePlan,
    stream: Stream,
    after: Position | None,
    natives: Mapping[str, str],
    *,
    comparison: str = ">",
) -> tuple[str, dict[str, Any]]:
    """Say that a row belongs to a read set's stream and comes strictly after a position, which is of `natives`."""
    where, bound = bounds_of(source, plan)
    inside, of_stream = within(plan, stream)
    where, bound = f"{where} AND {inside}", bound | of_stream
    if after is not None:
        left = ", ".join(quote(name) for name in plan.order)
        right = ", ".join(f"CAST($after_{n} AS {natives[c]})" for n, c in enumerate(plan.order))
        where = f"{where} AND ({left}) {comparison} ({right})"
        bound |= {f"after_{number}": value for number, value in enumerate(after)}
    return where, bound
