"""Which columns of tables a column of a result is, through aliases, joins, common tables, unions and views.

Postgres tells the origin of a result's column to the client alone, and of a view or a UNION not at all. The statement
is one that Postgres has run, so a name that is found is the one that is meant.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from domain.errors import QueryRefusedError
from infrastructure.queries.postgres_parsing import nodes, parsed, strings, tokens_of
from infrastructure.queries.postgres_scopes import name_of

Base = tuple[int, str]
"""The number of a table and the name of a column."""

_INTEGERS = frozenset({"int2", "int4", "int8"})
_SYSTEM = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})


@dataclass(frozen=True)
class Origin:
    """The columns whose values a column has as they are, and those that it is computed of; None where something
    of it cannot be followed. A constant has neither.
    """

    columns: frozenset[Base] = frozenset()
    computed: frozenset[Base] | None = frozenset()

    @property
    def all(self) -> frozenset[Base] | None:
        """All columns that it comes from."""
        return None if self.computed is None else self.columns | self.computed

    def beside(self, other: "Origin") -> "Origin":
        """The origin of values that come from one or the other."""
        is_known = self.computed is not None and other.computed is not None
        computed = (self.computed or frozenset()) | (other.computed or frozenset())
        return Origin(self.columns | other.columns, computed if is_known else None)


_UNSEEN = Origin(computed=None)


@dataclass(frozen=True)
class TableColumn:
    """A column as the catalog tells of it, with the columns that it is generated from."""

    name: str
    sources: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """A relation that a statement reads, under the path by which it does; a view has a definition."""

    number: int
    schema: str
    name: str
    is_visible: bool
    columns: tuple[TableColumn, ...]
    definition: str | None = None


@dataclass(frozen=True)
class _Columns:
    """The columns that are shown, and whether these are all."""

    found: tuple[tuple[str, Origin], ...] = ()
    is_whole: bool = True

    def named(self, name: str) -> Origin | None:
        """The column of a name, or None where there is none for certain."""
        found = [origin for known, origin in self.found if known == name]
        if found:
            return _merged(found)
        is_certain = self.is_whole and all(known for known, _ in self.found)
        return None if is_certain else _UNSEEN

    def renamed(self, names: Sequence[str]) -> "_Columns":
        """The same under other names, as far as there are some."""
        if not names:
            return self
        if not self.is_whole:
            return _ANY
        new = tuple((name, origin) for name, (_, origin) in zip(names, self.found, strict=False))
        return _Columns((*new, *self.found[len(names) :]))

    def without(self, names: Iterable[str]) -> tuple[tuple[str, Origin], ...]:
        """Those that have other names."""
        left_out = set(names)
        return tuple(each for each in self.found if each[0] not in left_out)


_ANY = _Columns(is_whole=False)


@dataclass(frozen=True)
class _From:
    """What a FROM, or a part of it, shows: by the names of its items (with their schemas), and without one."""

    items: tuple[tuple[str, str, _Columns], ...] = ()
    shown: _Columns = field(default_factory=_Columns)

    def beside(self, other: "_From") -> "_From":
        """Both, as a comma or a join puts them."""
        shown = _Columns((*self.shown.found, *other.shown.found), self.shown.is_whole and other.shown.is_whole)
        return _From((*self.items, *other.items), shown)

    def item(self, names: Sequence[str]) -> _Columns | None:
        """The item that is called `alias` or `schema.alias`."""
        found = [each for each in self.items if each[1] == names[-1] and names[:-1] in ([], [each[0]])]
        return found[0][2] if len(found) == 1 else _ANY if found else None


@dataclass(frozen=True)
class _Scope:
    """The FROMs that are seen, from the outside in, and the common tables by their names."""

    levels: tuple[_From, ...] = ()
    tables: dict[str, _Columns] = field(default_factory=dict)

    def inside(self, level: _From) -> "_Scope":
        """The same with one more FROM."""
        return replace(self, levels=(*self.levels, level))

    def column(self, names: Sequence[str]) -> Origin:
        """The column that a name means."""
        for level in reversed(self.levels):
            if len(names) == 1:
                found = level.shown.named(names[0])
            else:
                item = level.item(names[:-1])
                found = (item.named(names[-1]) or _plain(names[-1])) if item is not None else None
            if found is not None:
                return found
        return _plain(names[-1])

    def item(self, names: Sequence[str]) -> _Columns:
        """What `alias.*` shows."""
        return next((found for level in reversed(self.levels) if (found := level.item(names)) is not None), _ANY)


def origin_of(text: str, column: str, tables: Sequence[Table]) -> Origin:
    """The origin of a column of `SELECT * FROM text`, which has been judged before."""
    try:
        tree = parsed(f"SELECT * FROM {text}")
        found = _Trace(tables).statement(tree.stmts[0].stmt.select_stmt, _Scope())
    except (QueryRefusedError, RecursionError):
        return _UNSEEN
    return found.named(column) or _UNSEEN


class _Trace:
    """Follows columns through statements."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = {("", table.name): table for table in tables if table.is_visible}
        self._tables |= {(table.schema, table.name): table for table in tables}
        self._views: dict[int, _Columns] = {}

    def statement(self, stmt: Any, scope: _Scope) -> _Columns:
        """The columns of a SELECT."""
        scope = replace(scope, tables=self._common(stmt, scope))
        if stmt.HasField("larg"):
            left = self.statement(stmt.larg, scope)
            operation = stmt.DESCRIPTOR.fields_by_name["op"].enum_type.values_by_number[stmt.op].name
            return left if operation == "SETOP_EXCEPT" else _stacked(left, self.statement(stmt.rarg, scope))
        if stmt.values_lists:
            rows = [[self._value(item, scope) for item in row.list.items] for row in stmt.values_lists]
            return _Columns(tuple((f"column{n + 1}", _merged(each)) for n, each in enumerate(zip(*rows, strict=True))))
        level = _From()
        for item in stmt.from_clause:
            level = level.beside(self._item(item, scope.inside(level)))
        return self._targets(stmt, scope.inside(level))

    def _common(self, stmt: Any, scope: _Scope) -> dict[str, _Columns]:
        tables = dict(scope.tables)
        ctes = [node.common_table_expr for node in stmt.with_clause.ctes]
        if stmt.with_clause.recursive:
            tables |= {cte.ctename: _ANY for cte in ctes}
        for cte in ctes:
            found = self.statement(cte.ctequery.select_stmt, replace(scope, tables=tables))
            found = found.renamed(strings(cte.aliascolnames))
            has_more = cte.HasField("search_clause") or cte.HasField("cycle_clause")
            tables = {**tables, cte.ctename: replace(found, is_whole=found.is_whole and not has_more)}
        return tables

    def _item(self, node: Any, scope: _Scope) -> _From:
        kind = node.WhichOneof("node")
        if kind == "join_expr":
            return self._join(node.join_expr, scope)
        node = node.range_table_sample.relation.range_var if kind == "range_table_sample" else getattr(node, kind)
        alias, names = node.alias.aliasname, strings(node.alias.colnames)
        schema, columns = "", _ANY
        if kind == "range_subselect":
            columns = self.statement(node.subquery.select_stmt, scope)
        elif kind in ("range_var", "range_table_sample"):
            table = self._tables.get((node.schemaname, node.relname))
            common = scope.tables.get(node.relname) if not node.schemaname else None
            columns = common or (self._shown(table) if table is not None else _ANY)
            schema = table.schema if table is not None and common is None and not alias else ""
            alias = alias or node.relname
        columns = columns.renamed(names)
        return _From(((schema, alias, columns),), columns)

    def _join(self, join: Any, scope: _Scope) -> _From:
        left = self._item(join.larg, scope)
        right = self._item(join.rarg, scope.inside(left))
        both = left.beside(right)
        names = strings(join.using_clause)
        if join.is_natural and both.shown.is_whole:
            there = {name for name, _ in right.shown.found}
            names = [name for name, _ in left.shown.found if name in there]
        if names:
            kind = join.DESCRIPTOR.fields_by_name["jointype"].enum_type.values_by_number[join.jointype].name
            sides = {"JOIN_FULL": (left, right), "JOIN_RIGHT": (right,)}.get(kind, (left,))
            merged = tuple((n, _merged([side.shown.named(n) or _UNSEEN for side in sides])) for n in names)
            rest = (*left.shown.without(names), *right.shown.without(names))
            both = replace(both, shown=_Columns((*merged, *rest), both.shown.is_whole))
            if join.HasField("join_using_alias"):
                alias = ("", join.join_using_alias.aliasname, _Columns(merged))
                both = replace(both, items=(*both.items, alias))
        elif join.is_natural:
            both = replace(both, shown=_ANY)
        if join.HasField("alias"):
            shown = both.shown.renamed(strings(join.alias.colnames))
            return _From((("", join.alias.aliasname, shown),), shown)
        return both

    def _shown(self, table: Table) -> _Columns:
        """The columns of a table, or what those of a view are."""
        if table.definition is None:
            return _Columns(tuple((column.name, _own(table, column)) for column in table.columns))
        if table.number not in self._views:
            try:
                tokens_of(table.definition)
                tree = parsed(table.definition)
                found = self.statement(tree.stmts[0].stmt.select_stmt, _Scope())
            except QueryRefusedError:
                found = _ANY
            names = [column.name for column in table.columns]
            is_like = found.is_whole and len(found.found) == len(names)
            self._views[table.number] = (
                found.renamed(names) if is_like else _Columns(tuple((name, _UNSEEN) for name in names))
            )
        return self._views[table.number]

    def _targets(self, stmt: Any, scope: _Scope) -> _Columns:
        found, is_whole = list[tuple[str, Origin]](), True
        for target in stmt.target_list:
            value = target.res_target.val
            if not _is_star(value):
                found.append((target.res_target.name or name_of(value), self._value(value, scope)))
                continue
            columns = _ANY
            if value.WhichOneof("node") == "column_ref":
                names = strings(value.column_ref.fields)
                columns = scope.item(names) if names else scope.levels[-1].shown
            found += columns.found
            is_whole = is_whole and columns.is_whole
        return _Columns(tuple(found), is_whole)

    def _value(self, value: Any, scope: _Scope) -> Origin:
        kind = value.WhichOneof("node")
        while kind == "type_cast" and _is_integer(value.type_cast.type_name):
            value = value.type_cast.arg
            kind = value.WhichOneof("node")
        if kind == "column_ref" and not _is_star(value):
            return scope.column(strings(value.column_ref.fields))
        computed = frozenset[Base]()
        for node in nodes(value):
            if node.DESCRIPTOR.name == "SelectStmt":
                return _UNSEEN
            if node.DESCRIPTOR.name == "ColumnRef":
                names = strings(node.fields)
                found = scope.column(names).all if len(names) == len(node.fields) else None
                if found is None:
                    return _UNSEEN
                computed |= found
        return Origin(computed=computed)


def _stacked(left: _Columns, right: _Columns) -> _Columns:
    """The columns of a UNION or INTERSECT: a row of the latter is there once it is in both."""
    if not (left.is_whole and right.is_whole and len(left.found) == len(right.found)):
        return _ANY
    both = zip(left.found, right.found, strict=True)
    return _Columns(tuple((name, one.beside(other)) for (name, one), (_, other) in both))


def _merged(origins: Iterable[Origin]) -> Origin:
    found = Origin()
    for origin in origins:
        found = found.beside(origin)
    return found


def _own(table: Table, column: TableColumn) -> Origin:
    if column.sources is None:
        return Origin(frozenset({(table.number, column.name)}))
    return Origin(computed=frozenset((table.number, name) for name in column.sources))


def _plain(name: str) -> Origin:
    """What a name means that no column has."""
    return Origin() if name in _SYSTEM else _UNSEEN


def _is_integer(kind: Any) -> bool:
    *schema, name = strings(kind.names)
    return name in _INTEGERS and schema in ([], ["pg_catalog"]) and not kind.array_bounds


def _is_star(value: Any) -> bool:
    """Whether a value is all columns of something."""
    match value.WhichOneof("node"):
        case "column_ref":
            return bool(value.column_ref.fields[-1].WhichOneof("node") == "a_star")
        case "a_indirection":
            return bool(value.a_indirection.indirection[-1].WhichOneof("node") == "a_star")
    return False
