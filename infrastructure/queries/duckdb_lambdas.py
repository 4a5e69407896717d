"""How large what comes of a lambda may be, which runs for each item of a list."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_found import only, unknown
from infrastructure.queries.duckdb_names import FILTERING, REDUCING
from infrastructure.queries.duckdb_parsing import fold
from infrastructure.queries.duckdb_scope import Scope
from infrastructure.queries.duckdb_sizes import CELL, FIXED, NOTHING, ROW, Size, added, largest, product, times

Node = dict[str, Any]


class Walking(Protocol):
    """The walk that a lambda is a part of."""

    def expression(self, node: Node, scope: Scope) -> Size:
        """Walk an expression."""

    def all(self, nodes: list[Node], scope: Scope) -> list[Size]:
        """Walk expressions."""

    def rounds(self, list_size: Size) -> AbstractContextManager[None]:
        """Within a lambda."""


def size_of_lambda(walk: Walking, name: str, arguments: list[Node], scope: Scope) -> Size:
    """How large what a function gives may be that runs a lambda for each item of a list.

    Raises:
        QueryRefusedError: there is no lambda, or it is written with an arrow (`query.…`).
    """
    lambdas = [argument["expression"] for argument in arguments if argument["expression"].get("class") == "LAMBDA"]
    if len(lambdas) != 1 or not arguments or arguments[0]["expression"] is lambdas[0]:
        unknown(f"{name} without a lambda as its second argument")
    function = lambdas[0]
    if function.get("syntax_type") != "LAMBDA_KEYWORD":
        raise QueryRefusedError(
            f"Write what {name} does as in lambda x: x + 1; DuckDB takes an arrow for a way into JSON.",
            code="query.unparsable",
        )
    only(function, "lhs", "expr", "syntax_type")
    names = _parameters(function["lhs"])
    others = [argument["expression"] for argument in arguments if argument["expression"] is not function]
    list_size, *start = walk.all(others, scope)
    places = [number for number in range(len(names)) if number == len(names) - 1 > (1 if name in REDUCING else 0)]
    given = largest([list_size, *start])
    nothing: list[Size] = [FIXED if number in places else NOTHING for number in range(len(names))]
    items: list[Size] = [FIXED if number in places else given for number in range(len(names))]
    with walk.rounds(list_size):
        without = walk.expression(function["expr"], scope.with_lambda(names, nothing))
        whole = walk.expression(function["expr"], scope.with_lambda(names, items))
    if name in FILTERING:
        return list_size
    if name in REDUCING:
        return _reduced(walk, function, names, scope, added([list_size, *start]))
    # For each item what does not depend on it, and once what does of all of them.
    return added([product(without, _count(list_size)), whole])


def _count(list_size: Size) -> Size:
    """How many items a list has: each takes the room of a number at least."""
    return times(added([list_size, FIXED]), 1 / CELL)


def _reduced(walk: Walking, function: Node, names: list[str], scope: Scope, given: Size) -> Size:
    """What is carried from item to item may be in the result once: twice would double it each time."""

    def with_carried(size: Size) -> Size:
        sizes: list[Size] = [size, *([NOTHING] * (len(names) - 1))]
        return walk.expression(function["expr"], scope.with_lambda(names, sizes))

    base, unit = with_carried(NOTHING), with_carried(ROW)
    each = walk.expression(function["expr"], scope.with_lambda(names, [NOTHING, *([given] * (len(names) - 1))]))
    if base is None or unit is None or unit[1] - base[1] > 1 or unit[2] > base[2]:
        return None
    return added([product(base, _count(given)), each, given])


def _parameters(node: Node) -> list[str]:
    if node.get("class") == "FUNCTION" and node.get("function_name") == "row":
        nodes = [argument["expression"] for argument in node.get("arguments", ())]
    else:
        nodes = [node]
    names = []
    for part in nodes:
        if part.get("class") != "COLUMN_REF" or len(part["column_names"]) != 1:
            unknown("a lambda")
        names.append(fold(part["column_names"][0]))
    return names
