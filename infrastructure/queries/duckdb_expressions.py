"""Walks the expressions of a tree of DuckDB: what they call, name and look at, and how large what they give may be."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_calls import size_of_call
from infrastructure.queries.duckdb_costs import most_of, slowness, too_long
from infrastructure.queries.duckdb_found import Found, MakesTooMuchError, only, unknown
from infrastructure.queries.duckdb_lambdas import size_of_lambda
from infrastructure.queries.duckdb_names import (
    AGGREGATES,
    CALLED_WITHOUT_BRACKETS,
    FIXED_TYPES,
    LAMBDAS,
    MAX_ARRAY,
    MAX_ROUNDS,
    TYPES,
    UNNESTS,
    UNSTABLE,
    WINDOWS,
)
from infrastructure.queries.duckdb_parsing import fold, parts_of
from infrastructure.queries.duckdb_patterns import Patterns
from infrastructure.queries.duckdb_scope import Scope
from infrastructure.queries.duckdb_sizes import (
    CELL,
    FIXED,
    MAX_MADE,
    NOTHING,
    ROW,
    Size,
    added,
    is_bounded,
    largest,
    made,
    times,
    together,
)

Node = dict[str, Any]
Handler = Callable[["Expressions", Node, Scope], Size]
MAX_VISITS = 20_000
_SCHEMAS = (["main"], ["pg_catalog"], ["system", "main"])
_TRUTHS = frozenset(
    {"OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "COMPARE_IN", "COMPARE_NOT_IN", "GROUPING_FUNCTION"}
)
_GIVEN = frozenset({"COLUMN_REF", "CONSTANT", "PARAMETER", "SUBQUERY", "STAR"})
"""They give a value that is there already."""
_PARTS_OF_FIRST = frozenset({"STRUCT_EXTRACT", "ARRAY_EXTRACT", "ARRAY_SLICE"})
_OTHERS = frozenset({"OPERATOR_COALESCE", "OPERATOR_TRY", "ARRAY_CONSTRUCTOR", "OPERATOR_UNPACK"})


class Expressions(ABC):
    """The walk through expressions; queries within them are walked by a class made of this one."""

    def __init__(self, *, is_bounded: bool) -> None:
        self.found = Found()
        self.most: Size = NOTHING
        """The largest value on the way."""
        self._is_bounded = is_bounded
        self._visits = 0
        self._together: Size = NOTHING
        self._rounds = 1.0
        self._patterns = Patterns()

    def expression(self, node: Node, scope: Scope) -> Size:
        """Walk an expression, and say how large its value may be.

        Raises:
            QueryRefusedError: it holds what is on no list, or makes too much from nothing.
        """
        handler = _HANDLERS.get(str(node.get("class")))
        if handler is None:
            unknown(str(node.get("class")))
        self._visits += 1
        if self._visits > MAX_VISITS:
            raise QueryRefusedError("The query has too many lambdas within lambdas.", code="query.too_large")
        size = handler(self, node, scope)
        self.most = largest([self.most, size])
        if not self._is_bounded:
            return size
        if size is not None and size[0] > MAX_MADE:
            raise MakesTooMuchError(f"The query makes more than {MAX_MADE:,} bytes from nothing in one value.")
        if not is_bounded(size):
            raise MakesTooMuchError(
                "A value of the query may grow far beyond the rows it comes of: what is repeated, replaced or joined "
                "to itself is so again."
            )
        if node["class"] not in _GIVEN:
            self._note(size)
        return size

    def _note(self, size: Size) -> None:
        try:
            self._together = together(self._together, size)
        except ValueError as error:
            raise MakesTooMuchError(
                "The expressions of the query together make more than it may, though none of them does by itself; "
                "take fewer of those that repeat or list something."
            ) from error

    def all(self, nodes: list[Node], scope: Scope) -> list[Size]:
        """Walk expressions."""
        sizes = []
        for node in nodes:
            sizes.append(self.expression(node, scope))
        return sizes

    @contextmanager
    def rounds(self, list_size: Size) -> Iterator[None]:
        """Within a lambda: count how often it runs for a list that is made from nothing."""
        before = self._rounds
        self._rounds *= max(1.0, (list_size[0] if list_size is not None else 0.0) / CELL)
        if self._is_bounded and self._rounds > MAX_ROUNDS:
            raise MakesTooMuchError(f"Lambdas of the query run more than {MAX_ROUNDS:,} times for lists that it makes.")
        yield
        self._rounds = before

    def unbounded(self, error: MakesTooMuchError) -> Size:
        """Refuse what makes too much, where that is done here."""
        if self._is_bounded:
            raise error
        return None

    def note_time(self, name: str, arguments: list[Node], sizes: list[Size]) -> None:
        """Remember how long texts may be that a call works on, where it takes far longer than their size.

        Raises:
            QueryRefusedError: what it makes for that is too long (`query.too_large`).
        """
        share = slowness(name, arguments, self._patterns, is_source=self._is_bounded)
        for argument, size in zip(arguments if share else (), sizes, strict=False):
            written = most_of(argument["expression"])
            made, kept, squared = (written, 0.0, 0.0) if written is not None else size or (0.0, 0.0, 1.0)
            if made * share > 1 or squared:
                self.unbounded(MakesTooMuchError(too_long(name)))
                kept = math.inf
            self.found.slowness = max(self.found.slowness, kept * share)

    @abstractmethod
    def subquery(self, node: Node, scope: Scope) -> Size:
        """Walk a query within an expression."""

    def orders(self, node: Node | None, scope: Scope) -> None:
        """Walk an ORDER BY."""
        only(node or {}, "orders")
        for order in (node or {}).get("orders", ()):
            only(order, "expression", "null_order")
            self.expression(order["expression"], scope)


def _column(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "column_names")
    path = [fold(name) for name in node["column_names"]]
    if len(path) == 1 and path[0] not in scope.lambdas and path[0] in CALLED_WITHOUT_BRACKETS:
        walk.found.unstable.add(path[0])
        walk.found.is_plain = False
    if path[0] not in scope.lambdas:
        walk.found.columns.add(tuple(node["column_names"]))
    return scope.column(path)


def _constant(_walk: Expressions, node: Node, _scope: Scope) -> Size:
    only(node, "literal", "value")
    literal = node.get("literal")
    if literal is None:
        return FIXED
    only(literal, "kind", "text")
    return made(len(str(literal.get("text", "")).encode()))


def _parameter(walk: Expressions, node: Node, _scope: Scope) -> Size:
    only(node, "identifier")
    walk.found.parameters.add(str(node["identifier"]))
    walk.found.feature("parameters")
    return ROW


def _cast(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "child", "try_cast", "type_expr")
    size = walk.expression(node["child"], scope)
    kind, room = _type(walk, node["type_expr"], 1)
    if room > MAX_ARRAY:
        return walk.unbounded(
            MakesTooMuchError(
                f"An array type of the query has more than {MAX_ARRAY:,} items; use a list, such as INTEGER[]."
            )
        )
    if kind in FIXED_TYPES:
        return FIXED
    # Written out, a number, a time or a byte takes more room; what is text already does not.
    fields = sum(len(str(part.get("alias", "")).encode()) for part in parts_of(node["type_expr"]))
    return times(added([size, FIXED]), max(room, 2) + fields / CELL)


def _type(walk: Expressions, node: Node, room: int) -> tuple[str, int]:
    """The name of a type, and how many items an array of it has."""
    if node.get("class") != "TYPE":
        unknown("a type that is worked out")
    only(node, "catalog", "schema", "type_name", "children", "qualified_name")
    kind = fold(node.get("type_name", ""))
    if kind not in TYPES:
        walk.found.types.add(kind)
        walk.found.is_plain = False
    for child in node.get("children", ()):
        if child.get("class") == "CONSTANT":
            text = str(child.get("literal", {}).get("text", ""))
            if kind == "array":
                room *= int(text) if text.isdecimal() and len(text) < 10 else MAX_ARRAY + 1
        else:
            _, room = _type(walk, child, room)
    return kind, room


def _function(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(
        node, "function_name", "schema", "catalog", "filter", "order_bys", "distinct", "is_operator", "arguments",
        "qualified_name",
    )  # fmt: skip
    name = fold(node["function_name"])
    arguments = list(node.get("arguments", ()))
    path = node.get("qualified_name", {}).get("path", [])[:-1]
    if path and [fold(part) for part in path] not in _SCHEMAS:
        # `a.lower()`: what stands before the point is a column, or a schema of the file, which has no such function.
        before = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": path}
        arguments.insert(0, {"name": "", "expression": before})
    walk.found.call(name)
    if name in AGGREGATES or node.get("filter") or node.get("order_bys", {}).get("orders") or node.get("distinct"):
        walk.found.feature("aggregates")
    if name in UNNESTS:
        walk.found.feature("unnest")
    if name in WINDOWS:
        walk.found.feature("window functions")
    if name in UNSTABLE or (name == "age" and len(arguments) == 1):
        walk.found.unstable.add(name)
    if node.get("filter"):
        walk.expression(node["filter"], scope)
    walk.orders(node.get("order_bys"), scope)
    for argument in arguments:
        only(argument, "name", "expression")
    if name in LAMBDAS:
        return size_of_lambda(walk, name, arguments, scope)
    sizes = walk.all([argument["expression"] for argument in arguments], scope)
    walk.note_time(name, arguments, sizes)
    # Written out as text or JSON, a value has the names of its fields.
    sizes += [made(len(argument["name"].encode())) for argument in arguments if argument.get("name")]
    try:
        return size_of_call(name, arguments, sizes)
    except MakesTooMuchError as error:
        return walk.unbounded(error)


def _arrow(walk: Expressions, node: Node, scope: Scope) -> Size:
    """`a -> 'b'`, which takes a value out of JSON wherever it is no argument of what works on lists."""
    only(node, "lhs", "expr", "syntax_type")
    if node.get("syntax_type") != "SINGLE_ARROW":
        unknown("a lambda")
    walk.found.call("->")
    return added(walk.all([node["lhs"], node["expr"]], scope))


def _operator(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "children")
    kind = node["type"]
    if kind not in _TRUTHS | _PARTS_OF_FIRST | _OTHERS:
        unknown(kind)
    if kind in _PARTS_OF_FIRST or kind in ("ARRAY_CONSTRUCTOR", "OPERATOR_TRY"):
        walk.found.is_plain = False
    if kind == "GROUPING_FUNCTION":
        walk.found.feature("aggregates")
    if kind == "OPERATOR_UNPACK":
        walk.found.feature("COLUMNS(…)")
    sizes = walk.all(node.get("children", []), scope)
    if kind in _TRUTHS:
        return FIXED
    if kind in _PARTS_OF_FIRST:
        return sizes[0] if sizes else FIXED
    return added(sizes) if kind in ("ARRAY_CONSTRUCTOR", "OPERATOR_UNPACK") else largest(sizes)


def _case(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "case_checks", "else_expr")
    sizes = []
    for check in node.get("case_checks", ()):
        only(check, "when_expr", "then_expr")
        walk.expression(check["when_expr"], scope)
        sizes.append(walk.expression(check["then_expr"], scope))
    if node.get("else_expr"):
        sizes.append(walk.expression(node["else_expr"], scope))
    return largest(sizes)


def _compared(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "left", "right", "children", "input", "lower", "upper")
    walk.all(node.get("children", []), scope)
    for name in ("left", "right", "input", "lower", "upper"):
        if node.get(name):
            walk.expression(node[name], scope)
    return FIXED


def _collate(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "child", "collation")
    walk.found.is_plain = False
    return walk.expression(node["child"], scope)


def _star(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(
        node, "relation_name", "exclude_list", "replace_list", "columns", "expr", "qualified_exclude_list",
        "rename_list",
    )  # fmt: skip
    if node.get("columns"):
        walk.found.feature("COLUMNS(…)")
    sizes = [scope.row()]
    for item in node.get("replace_list", ()):
        only(item, "key", "value")
        sizes.append(walk.expression(item["value"], scope))
    if node.get("expr"):
        walk.expression(node["expr"], scope)
    return added(sizes)


def _window(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(
        node, "function_name", "schema", "catalog", "partitions", "orders", "start", "end", "start_expr", "end_expr",
        "filter_expr", "exclude_clause", "arguments", "ignore_nulls", "has_ignore_nulls", "distinct", "arg_orders",
        "qualified_name",
        "offset_expr", "default_expr", "children",
    )  # fmt: skip
    name = fold(node["function_name"])
    walk.found.call(name)
    walk.found.feature("window functions")
    if name not in AGGREGATES | WINDOWS:
        unknown(f"{name} OVER")
    walk.all([*node.get("partitions", ()), *node.get("children", ())], scope)
    for key in ("orders", "arg_orders"):
        walk.orders({"orders": node.get(key, ())}, scope)
    for key in ("start_expr", "end_expr", "filter_expr", "offset_expr", "default_expr"):
        if node.get(key):
            walk.expression(node[key], scope)
    return added([FIXED, *walk.all([argument["expression"] for argument in node.get("arguments", ())], scope)])


def _subquery(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "subquery_type", "subquery", "child", "comparison_type")
    walk.found.feature("subqueries")
    if node.get("child"):
        walk.expression(node["child"], scope)
    return walk.subquery(node["subquery"], scope)


def _position(walk: Expressions, node: Node, scope: Scope) -> Size:
    only(node, "index")
    walk.found.feature("columns by their place (#1)")
    return scope.row()


_HANDLERS: dict[str, Handler] = {
    "COLUMN_REF": _column,
    "CONSTANT": _constant,
    "PARAMETER": _parameter,
    "CAST": _cast,
    "FUNCTION": _function,
    "LAMBDA": _arrow,
    "OPERATOR": _operator,
    "CASE": _case,
    "COMPARISON": _compared,
    "CONJUNCTION": _compared,
    "BETWEEN": _compared,
    "COLLATE": _collate,
    "STAR": _star,
    "WINDOW": _window,
    "SUBQUERY": _subquery,
    "POSITIONAL_REFERENCE": _position,
}
