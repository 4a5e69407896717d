"""Walks a whole query of DuckDB: its SELECTs, common tables and relations, against lists of what is known
to only read.
"""

from dataclasses import replace
from typing import Any

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_expressions import Expressions
from infrastructure.queries.duckdb_found import (
    MakesTooMuchError,
    check_relation_name,
    forbidden_function,
    only,
    unknown,
)
from infrastructure.queries.duckdb_names import MAX_MADE_ROWS, SERIES, TABLES
from infrastructure.queries.duckdb_parsing import fold, parts_of, pivot
from infrastructure.queries.duckdb_scope import EMPTY, STORED, Scope, Shape
from infrastructure.queries.duckdb_series import length
from infrastructure.queries.duckdb_sizes import FIXED, ROW, Size, added, largest, made, times

Node = dict[str, Any]
MAX_PARTS = 1_000
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE")


class Walk(Expressions):
    """The walk through queries and relations."""

    def subquery(self, node: Node, scope: Scope) -> Size:
        only(node, "node", "named_param_map")
        return self.query(node["node"], scope).row

    def query(self, node: Node, outer: Scope | None = None) -> Shape:
        """Walk a query, and say how large what it gives may be.

        Raises:
            QueryRefusedError: it holds what is on no list, or makes too much from nothing.
        """
        scope = outer.inner() if outer is not None else Scope()
        self._count(1)
        kind = str(node.get("type"))
        self._common_tables(node, scope)
        if kind == "SELECT_NODE":
            shape = self._select(node, scope)
        elif kind == "SET_OPERATION_NODE":
            only(node, "modifiers", "cte_map", "setop_type", "setop_all", "children", "left", "right")
            self.found.feature("set operations")
            parts = [*node.get("children", ()), *(node[side] for side in ("left", "right") if node.get(side))]
            shape = _largest([self.query(part, scope) for part in parts])
        elif kind == "RECURSIVE_CTE_NODE":
            shape = self._recursive(node, scope)
        elif kind.startswith(_WRITES):
            raise QueryRefusedError("Only a statement that reads is allowed.", code="query.not_readonly")
        else:
            unknown(kind)
        self._modifiers(node, scope, shape)
        return shape

    def _common_tables(self, node: Node, scope: Scope) -> None:
        for item in node.get("cte_map", {}).get("map", ()):
            self.found.feature("with")
            only(item, "key", "value")
            value, name = item["value"], fold(item["key"])
            only(value, "aliases", "materialized", "key_targets", "payload_aggregates", "query_node", "query")
            check_relation_name(name)
            query = value.get("query_node") or value.get("query", {}).get("node")
            if not isinstance(query, dict):
                unknown("a common table")
            if query.get("type") == "RECURSIVE_CTE_NODE":
                query = {**query, "aliases": value.get("aliases", [])}
            before = self._parts
            shape = self.query(query, scope)
            scope.common[name] = replace(shape, parts=self._parts - before)
            self._parts = before
            self.all([*value.get("key_targets", ()), *value.get("payload_aggregates", ())], Scope(scope))

    def _select(self, node: Node, scope: Scope) -> Shape:
        only(
            node, "modifiers", "cte_map", "select_list", "from_table", "where_clause", "group_expressions",
            "group_sets",
            "aggregate_handling", "having", "sample", "qualify",
        )  # fmt: skip
        for key, words in (("group_expressions", "group by"), ("group_sets", "group by"), ("having", "having"),
                           ("qualify", "qualify"), ("sample", "sampling")):  # fmt: skip
            if node.get(key):
                self.found.feature(words)
        if node.get("aggregate_handling", "STANDARD_HANDLING") != "STANDARD_HANDLING":
            self.found.feature("group by")
        self.relation(node["from_table"], scope)
        cells = self.all(node.get("select_list", []), scope)
        self.all(node.get("group_expressions", []), scope)
        for key in ("where_clause", "having", "qualify"):
            if node.get(key):
                self.expression(node[key], scope)
        every: list[Size] = [FIXED]
        for item, cell in zip(node.get("select_list", ()), cells, strict=True):
            every += self._cells_of_star(item, scope) if item.get("class") == "STAR" else [cell]
        names = sum(len(str(item.get("alias", "")).encode()) for item in node.get("select_list", ()))
        return Shape(largest(every), added([FIXED, made(names), *cells]))

    def _cells_of_star(self, star: Node, scope: Scope) -> list[Size]:
        cells = [shape.cell for _, shape in scope.relations]
        return [*cells, *self.all([item["value"] for item in star.get("replace_list", ())], scope)]

    def _recursive(self, node: Node, scope: Scope) -> Shape:
        """What each round adds may hold the round before once: twice would double it in every round."""
        only(
            node, "modifiers", "cte_map", "cte_name", "union_all", "left", "right", "aliases", "key_targets",
            "payload_aggregates", "recurring",
        )  # fmt: skip
        name, first = fold(node["cte_name"]), self.query(node["left"], scope)
        names = _output_names(node["left"])
        rounds = self.rounds_walk()
        rounds.found = self.found
        is_told = names is not None and not any(part.get("type") == "SUBQUERY" for part in parts_of(node["right"]))
        aliases = frozenset(fold(alias) for alias in node.get("aliases", ()))
        around = Scope(scope, {name: STORED}, shadowed=(names or frozenset()) | aliases | {name} if is_told else None)
        grown = rounds.recursive_part(node["right"], around)
        if grown is None or grown[1] > 1 or grown[2] > 0:
            raise MakesTooMuchError(
                "The recursive part of the query may double a value in every round: name the table of each column "
                f"({name}.path || t.name), and cast what is added up (CAST(a + b AS BIGINT))."
            )
        inner = Scope(scope, {name: Shape(largest([first.cell, ROW]), largest([first.row, ROW]))})
        return _largest([first, self.query(node["right"], inner), inner.common[name]])

    def rounds_walk(self) -> "Walk":
        """A walk through what is done again and again."""
        return Walk(is_bounded=False)

    def stored_as(self, path: tuple[str, ...], /) -> Shape:
        """What a relation of this name is, which is no common table."""
        return self.stored if path else EMPTY

    def recursive_part(self, node: Node, scope: Scope) -> Size:
        """How often a value of the round before is in one of this round."""
        self.stored = EMPTY
        self.query(node, scope)
        return self.most

    stored: Shape = STORED
    _parts = 0

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise MakesTooMuchError(
                "The query names relations, or its common tables one another, so often that it is one of more than "
                f"{MAX_PARTS:,} queries; let each be named less often, or make a view or table of one."
            )

    def _modifiers(self, node: Node, scope: Scope, shape: Shape) -> None:
        inside = Scope(
            scope.outer, scope.common, [*scope.relations, ("", shape)], scope.lambdas, shadowed=scope.shadowed
        )
        for modifier in node.get("modifiers", ()):
            kind = str(modifier.get("type"))
            only(modifier, "orders", "limit", "offset", "limit_type", "distinct_on_targets")
            words = {"ORDER_MODIFIER": "order by", "LIMIT_MODIFIER": "limit", "DISTINCT_MODIFIER": "distinct"}.get(kind)
            if words is None:
                unknown(kind)
            self.found.feature(words)
            self.orders({"orders": modifier.get("orders", ())}, inside)
            self.all(modifier.get("distinct_on_targets", []), inside)
            for key in ("limit", "offset"):
                if modifier.get(key):
                    self.expression(modifier[key], inside)

    def relation(self, node: Node, scope: Scope) -> None:
        """Walk a FROM item, and bring what it names into scope.

        Raises:
            QueryRefusedError: as `query`.
        """
        kind = str(node.get("type"))
        if node.get("sample"):
            self.found.feature("sampling")
        if kind == "EMPTY":
            only(node, "sample")
            self.found.feature("any relation other than batch")
        elif kind == "BASE_TABLE":
            self._table(node, scope)
        elif kind == "JOIN":
            self._join(node, scope)
        elif kind == "SUBQUERY":
            only(node, "sample", "subquery", "column_name_alias")
            self.found.feature("subqueries")
            only(node["subquery"], "node", "named_param_map")
            self._add(node, self.query(node["subquery"]["node"], scope), scope)
        elif kind == "TABLE_FUNCTION":
            self._table_function(node, scope)
        elif kind == "EXPRESSION_LIST":
            only(node, "sample", "expected_names", "expected_types", "values", "column_name_alias")
            self.found.feature("any relation other than batch")
            rows = [added([FIXED, *self.all(row, scope)]) for row in node.get("values", ())]
            self._add(node, Shape(largest(rows), largest(rows)), scope)
        elif kind == "PIVOT":
            self._pivot(node, scope)
        elif kind == "SHOW_REF":
            raise QueryRefusedError(
                "Only a statement that reads rows is allowed, not DESCRIBE, SHOW or SUMMARIZE.",
                code="query.not_readonly",
            )
        else:
            unknown(kind)

    def _table(self, node: Node, scope: Scope) -> None:
        only(node, "sample", "schema_name", "table_name", "column_name_alias", "catalog_name", "qualified_name")
        path = tuple(str(part) for part in node.get("qualified_name", {}).get("path", ()))
        written = tuple(str(node[key]) for key in ("catalog_name", "schema_name", "table_name") if node.get(key))
        if not path or path != written:
            unknown("the name of a relation")
        if node.get("column_name_alias"):
            self.found.feature("other names of the columns of a relation")
        common = scope.common_table(fold(path[0])) if len(path) == 1 else None
        self._count(common.parts if common is not None else 1)
        if common is None:
            self.found.relation(path)
        self._add({**node, "alias": node.get("alias") or path[-1]}, common or self.stored_as(path), scope)

    def _join(self, node: Node, scope: Scope) -> None:
        only(
            node, "sample", "left", "right", "condition", "join_type", "ref_type", "using_columns", "is_implicit",
            "nearest_count", "nearest_order_type", "nearest_order",
        )  # fmt: skip
        self.found.feature("joins")
        self.relation(node["left"], scope)
        self.relation(node["right"], scope)
        for key in ("condition", "nearest_order"):
            if node.get(key):
                self.expression(node[key], scope)

    def _table_function(self, node: Node, scope: Scope) -> None:
        only(node, "sample", "function", "column_name_alias", "with_ordinality")
        function = node["function"]
        name = fold(function.get("function_name", ""))
        self.found.feature("any relation other than batch")
        if name not in TABLES:
            raise forbidden_function(name)
        if name not in SERIES:
            size = self.expression(function, scope)
            self._add({**node, "alias": node.get("alias") or name}, Shape(size, times(size, 8)), scope)
            return
        only(function, "function_name", "arguments", "qualified_name", "order_bys")
        only(function.get("order_bys", {}))
        self.found.call(name)
        if len(function.get("qualified_name", {}).get("path", ())) != 1 or any(
            a.get("name") for a in function.get("arguments", ())
        ):
            unknown(f"another way to call {name}")
        arguments = [argument["expression"] for argument in function.get("arguments", ())]
        self.all(arguments, scope)
        count = length(arguments)
        if count is None or count > MAX_MADE_ROWS:
            raise MakesTooMuchError(
                f"The rows that {name} makes have to be bounded where it is written: by numbers or times written out, "
                f"of at most {MAX_MADE_ROWS:,} rows."
            )
        self._add({**node, "alias": node.get("alias") or name}, Shape(FIXED, FIXED), scope)

    def _pivot(self, node: Node, scope: Scope) -> None:
        only(
            node,
            "sample",
            "source",
            "aggregates",
            "unpivot_names",
            "pivots",
            "groups",
            "column_name_alias",
            "include_nulls",
        )
        self.found.feature("pivot")
        inside = Scope(scope, shadowed=scope.shadowed)
        self.relation(node["source"], inside)
        sizes = self.all(node.get("aggregates", []), inside)
        for item in node.get("pivots", ()):
            if item.get("subquery") or item.get("pivot_enum"):
                raise pivot()
            only(item, "pivot_expressions", "unpivot_names", "entries")
            self.all(item.get("pivot_expressions", []), inside)
            for entry in item.get("entries", ()):
                only(entry, "star_expr", "values")
                if entry.get("star_expr"):
                    self.expression(entry["star_expr"], inside)
        shapes = [shape for _, shape in inside.relations]
        cell = largest([FIXED, *sizes, *(shape.cell for shape in shapes)])
        row = added([FIXED, *sizes, *(shape.row for shape in shapes)])
        self._add(node, Shape(cell, times(row, 1 + len(node.get("pivots", ())) * 4)), scope)

    def _add(self, node: Node, shape: Shape, scope: Scope) -> None:
        scope.relations.append((fold(node.get("alias") or ""), shape))


def _largest(shapes: list[Shape]) -> Shape:
    return Shape(largest(shape.cell for shape in shapes), largest(shape.row for shape in shapes))


def _output_names(node: Node) -> frozenset[str] | None:
    """The names of what a query gives; None where not all are told."""
    if node.get("type") != "SELECT_NODE":
        return None
    names = set()
    for item in node.get("select_list", ()):
        if item.get("alias"):
            names.add(fold(item["alias"]))
        elif item.get("class") == "COLUMN_REF":
            names.add(fold(item["column_names"][-1]))
        elif item.get("class") != "CONSTANT":
            return None
    return frozenset(names)
