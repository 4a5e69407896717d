"""A query of a DuckDB source: what it reads and calls, and its text, proved to stay one query within ours."""

from dataclasses import dataclass

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_costs import GATHERING, SLOW
from infrastructure.queries.duckdb_doubled import may_double_within
from infrastructure.queries.duckdb_parsing import Node, parsed, rendered, same, tokens_of, unparsable
from infrastructure.queries.duckdb_placeholders import PREFIX, with_bound_names
from infrastructure.queries.duckdb_tree import Walk

_ANY_TEXT = 1e9


@dataclass(frozen=True)
class DuckDBQuery:
    """A query that only reads."""

    text: str
    """What runs: `$p_name` for each parameter, and nothing behind it that could reach beyond its brackets."""
    parameters: frozenset[str]
    relations: tuple[tuple[str, ...], ...]
    """Each with its catalog and schema, if they are written; no common tables."""
    functions: frozenset[str]
    types: frozenset[str]
    """Those that are not DuckDB's own, as the engine compares names."""
    is_plain: bool
    """Columns, literals, comparisons and built-in casts of relations, and nothing else."""
    slow: frozenset[str] = frozenset()
    """Functions of it that take far longer than the size of their texts."""
    slowness: float = 0.0
    """What part of what a text may take each byte of the longest is."""
    may_double: bool = False
    """Whether a query within it may give two columns one name."""


def read_query(text: str, names: frozenset[str] | None = None) -> DuckDBQuery:
    """Look at a query; any parameter is one where no names are given.

    Raises:
        QueryRefusedError: it is not one SELECT that only reads what it may (`query.…`).
    """
    bound = with_bound_names(text, names)
    tree = parsed(bound)
    walk = Walk(is_bounded=True)
    walk.query(tree)
    unknown = [name for name in walk.found.parameters if not name.startswith(PREFIX)]
    if unknown:
        raise QueryRefusedError(
            "A parameter of the query has no name: write :name or $name.", code="query.parameter_missing"
        )
    found = walk.found
    # A common table may have the name of a relation elsewhere in the query, and a set may be of anything.
    is_plain = found.is_plain and not found.unstable and not found.types
    return DuckDBQuery(
        text=_enclosed(bound, tree),
        parameters=frozenset(name.removeprefix(PREFIX) for name in found.parameters),
        relations=tuple(found.relations),
        functions=frozenset(found.functions),
        types=frozenset(found.types),
        slow=frozenset(found.functions & SLOW),
        slowness=_ANY_TEXT if found.slowness and found.functions & GATHERING else found.slowness,
        is_plain=is_plain,
        may_double=may_double_within(tree),
    )


def _enclosed(text: str, tree: Node) -> str:
    """A text that is this very tree within the brackets of a FROM item."""
    around = parsed("SELECT * FROM (\nSELECT 1\n) AS source")
    around["from_table"]["subquery"]["node"] = tree
    for candidate in candidates(text, tree):
        try:
            if same(parsed(f"SELECT * FROM (\n{candidate}\n) AS source"), around):
                return candidate
        except QueryRefusedError:
            continue
    raise unparsable("it is another query within brackets")


def candidates(text: str, tree: Node) -> list[str]:
    """Texts that may be of a tree: as it is written, without the semicolon at its end, and as the engine writes it."""
    tokens = tokens_of(text)
    kept = list(tokens)
    while kept and (kept[-1][1] in ("comment", "blank") or kept[-1][0].strip() == ";"):
        kept.pop()
    return [text, "".join(token for token, _ in kept), rendered(tree)]
