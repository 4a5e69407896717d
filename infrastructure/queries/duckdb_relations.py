"""How large the values are that a DuckDB file works out itself, in its views, generated columns and macros, which
nobody has looked at.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_found import Found, MakesTooMuchError
from infrastructure.queries.duckdb_names import COUNTED, FORMATS, MULTIPLIED, SERIES, TABLES
from infrastructure.queries.duckdb_parsing import fold, parsed, tokens_of
from infrastructure.queries.duckdb_scope import STORED, Scope, Shape
from infrastructure.queries.duckdb_sizes import FIXED, Size, added, largest
from infrastructure.queries.duckdb_tree import Walk

Node = dict[str, Any]
_RUNNING = frozenset({"query", "query_table", "json_execute_serialized_sql"})
"""Functions that run a text."""
_MAKING = COUNTED.keys() | SERIES | set(FORMATS) | set(MULTIPLIED) | _RUNNING
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Held:
    """What a file has: views as they were made, tables with what their generated columns are, and macros with their
    parameters.
    """

    views: tuple[tuple[str, str, str], ...] = ()
    columns: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = ()
    macros: tuple[tuple[str, tuple[str, ...], str], ...] = ()


def judge_held(text: str, held: Held) -> bool:
    """Look at what a query reads, of a file that has these.

    Raises:
        MakesTooMuchError: it, or what it reads, works out larger values than a query may.
    """
    walk = _HeldWalk(held)
    try:
        walk.query(parsed(text))
    except MakesTooMuchError as error:
        raise MakesTooMuchError(
            f"A view of the DuckDB file, or a table with generated columns, works out too much: {error.message} Make "
            "a table of what it gives."
        ) from error
    return True


@dataclass
class _Anything(Found):
    """What may be in a file is for whoever made it to say: only sizes count."""

    def call(self, name: str) -> None:
        self.functions.add(name)

    def relation(self, path: tuple[str, ...]) -> None:
        self.relations.append(path)


@dataclass
class _Known:
    """What has been found of what a file has, for all walks through it."""

    views: dict[tuple[str, str], str]
    columns: dict[tuple[str, str], tuple[tuple[str, str], ...]]
    macros: dict[str, list[tuple[tuple[str, ...], str]]] = field(default_factory=dict)
    shapes: dict[tuple[str, str], Shape] = field(default_factory=dict)


class _HeldWalk(Walk):
    """A walk that goes on into what the names of relations and macros stand for."""

    def __init__(
        self, held: Held, known: _Known | None = None, *, schema: str = "main", is_bounded: bool = True
    ) -> None:
        """`schema` is where what is walked lies, and looks first."""
        super().__init__(is_bounded=is_bounded)
        self._schema = schema
        self.found = _Anything()
        self._held = held
        self._known = known or _known(held)

    def rounds_walk(self) -> Walk:
        return _HeldWalk(self._held, self._known, schema=self._schema, is_bounded=False)

    def stored_as(self, path: tuple[str, ...], /) -> Shape:
        name = fold(path[-1])
        places = [place for place in (*self._known.views, *self._known.columns) if place[1] == name]
        near = [fold(path[-2])] if len(path) > 1 else [self._schema, "main"]
        if len(path) > 1 or any(schema in near for schema, _ in places):
            places = [place for place in places if place[0] in near]
        shapes = [self._shape(place) for place in places] or [self.stored]
        return Shape(largest(shape.cell for shape in shapes), largest(shape.row for shape in shapes))

    def expression(self, node: Node, scope: Scope) -> Size:
        """Walk an expression; a macro is what it is made of, with what it is called with in the place of its
        parameters.
        """
        name = fold(node.get("function_name", "")) if node.get("class") == "FUNCTION" else ""
        for parameters, definition in self._known.macros.get(name, ()):
            given = self.all([argument["expression"] for argument in node.get("arguments", ())], scope)
            names = [fold(parameter) for parameter in parameters]
            sizes = [largest(given)] * len(names)  # Some may be given by name.
            tree = parsed(f"SELECT (\n{definition}\n)")
            super().all(tree["select_list"], scope.with_lambda(names, sizes))
        return super().expression(node, scope)

    def _table_function(self, node: Node, scope: Scope) -> None:
        function = node["function"]
        name = fold(function.get("function_name", ""))
        if name in _RUNNING:
            raise MakesTooMuchError(f"what {name} runs is not known.")
        if name in TABLES and name not in SERIES and name not in self._known.macros:
            super()._table_function(node, scope)
            return
        given = self.all([argument["expression"] for argument in function.get("arguments", ())], scope)
        shape = Shape(FIXED, FIXED) if name in SERIES else STORED
        for parameters, definition in self._known.macros.get(name, ()):
            names = [fold(parameter) for parameter in parameters]
            shape = self.query(parsed(definition), scope.with_lambda(names, [largest(given)] * len(names)))
        self._add({**node, "alias": node.get("alias") or name}, shape, scope)

    def _shape(self, place: tuple[str, str]) -> Shape:
        shapes = self._known.shapes
        if place not in shapes:
            shapes[place] = self.stored  # One that reads itself cannot be read.
            text = self._known.views.get(place, "")
            inner = _HeldWalk(self._held, self._known, schema=place[0])
            try:
                columns = self._known.columns.get(place)
                shapes[place] = inner.query(parsed(_selected(text))) if columns is None else inner.generated(columns)
            except MakesTooMuchError:
                raise
            except QueryRefusedError as error:
                words = text + " ".join(expression for _, expression in self._known.columns.get(place, ()))
                if any(word.lower() in _MAKING or fold(word) in self._known.macros for word in _WORD.findall(words)):
                    raise MakesTooMuchError(f"it cannot be looked at ({error.message.rstrip('.')}).") from error
        return shapes[place]

    def generated(self, columns: tuple[tuple[str, str], ...]) -> Shape:
        """A table of which columns are made of others."""
        sizes: dict[str, Size] = {fold(name): STORED.cell for name, _ in columns}
        trees = {fold(name): parsed(f"SELECT (\n{expression}\n)")["select_list"] for name, expression in columns}
        for _ in columns:
            before = dict(sizes)
            for name, tree in trees.items():
                scope = Scope(relations=[("", STORED)]).with_lambda(list(sizes), list(sizes.values()))
                sizes[name] = largest([STORED.cell, *self.all(tree, scope)])
            if sizes == before:
                break
        return Shape(largest(sizes.values()), added([STORED.row, *sizes.values()]))


def _known(held: Held) -> _Known:
    known = _Known(
        {(fold(schema), fold(name)): text for schema, name, text in held.views},
        {(fold(schema), fold(name)): columns for schema, name, columns in held.columns},
    )
    for name, parameters, definition in held.macros:
        known.macros.setdefault(fold(name), []).append((parameters, definition))
    return known


def _selected(text: str) -> str:
    """What a view selects, by the statement that makes it."""
    tokens, depth = tokens_of(text), 0
    for number, (token, _) in enumerate(tokens):
        word = token.strip()
        depth += (word == "(") - (word == ")")
        if depth == 0 and word.lower() == "as":
            return "".join(told for told, _ in tokens[number + 1 :])
    return ""
