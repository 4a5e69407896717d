"""Which columns are seen where in a statement, so that `a.b` is a column and never the call of a function b.

Postgres takes `a.b` for the function b of the row a where a has no column b, and `(x).b` likewise. Where it is not
certain which item of a FROM a name means, all that may be meant have to have the column. Columns of foreign types are
let through only where no operator or function is looked up by a name for them: the path for that is not the role's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infrastructure.queries.postgres_judging import forbidden, untrusted_type
from infrastructure.queries.postgres_known import ROW, Field, Known, Named
from infrastructure.queries.postgres_names import FUNCTIONS, KNOWN_TO_REACH, TYPES
from infrastructure.queries.postgres_orders import (
    CAST,
    SHOWN,
    SORTED,
    USED,
    arms,
    below,
    has_positions,
    keeps_all,
    refuse_sorted,
)
from infrastructure.queries.postgres_parsing import nodes, refused, strings

_SYSTEM = ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", ROW)
# Functions that give one column, which is named as they are in the FROM.
_ONE_COLUMN = frozenset(
    [
        *(
            "generate_series",
            "generate_subscripts",
            "unnest",
            "string_to_table",
            "regexp_split_to_table",
            "regexp_matches",
        ),
        *("json_object_keys", "jsonb_object_keys", "jsonb_path_query"),
    ]
)
_EXISTS = 1
_NAMING = frozenset({"ColumnRef", "A_Indirection", "RangeVar"})


@dataclass(frozen=True)
class Item:
    """What a FROM shows under a name; others may be meant by the name of a hidden one."""

    alias: str
    fields: tuple[Field, ...]
    is_whole: bool = True
    is_hidden: bool = False
    is_pending: bool = False


@dataclass(frozen=True)
class Place:
    """Where an expression stands: the FROMs that it sees, from the outside in, each with whether all of it is seen, and
    the common tables by their names. What an operand selects is compared with something.
    """

    levels: tuple[tuple[list[Item], bool], ...] = ()
    tables: dict[str, Item] = field(default_factory=dict)
    is_operand: bool = False

    def inside(self, level: list[Item], *, is_certain: bool = True) -> "Place":
        """The same with one more FROM."""
        return replace(self, levels=(*self.levels, (level, is_certain)))


Output = tuple[tuple[Field, ...], bool]
"""The columns of a statement, and whether these are all."""


class Scopes:
    """Goes through a statement. Without what a catalog says (`known`), only what needs none is refused."""

    def __init__(self, known: Known | None) -> None:
        self._known = known
        self._has_foreign = known is not None and any(
            f.foreign for relation in known.relations.values() for f in relation.fields
        )
        self.relations: list[tuple[Any, Named]] = []
        self.selected: set[str] = set()
        self.sources: set[str] = set()
        self._seen: list[Any] = []

    def whole(self, tree: Any) -> None:
        """Go through the one statement of a tree, and refuse it where a name stands that this did not come by.

        Raises:
            QueryRefusedError: `query.…`.
        """
        self.statement(tree.stmts[0].stmt.select_stmt, Place())
        seen = {id(node) for node in self._seen}
        for node in nodes(tree, until="TypeName"):
            if node.DESCRIPTOR.name in _NAMING and id(node) not in seen:
                raise refused(
                    "The query has a part in which it is not known what a name means; write it in a simpler way."
                )

    def statement(self, stmt: Any, place: Place, own: tuple[str, Sequence[str]] | None = None) -> Output:
        """Check a SELECT, which may be that of the recursive table `own`; return its columns."""
        place = replace(place, tables=self._common(stmt, place))
        if not stmt.HasField("larg"):
            return self._single(stmt, place)
        found = list[Output]()
        for arm in arms(stmt):
            found.append(self.statement(arm, place))
            if own is not None and len(found) == 1:
                name, names = own
                place.tables[name] = Item(name, _renamed(*found[0], names), found[0][1])
        (first, _), is_whole = found[0], all(whole for _, whole in found)
        foreign = [
            next((f for fields, _ in found for f in fields[n : n + 1] if f.foreign), None) for n in range(len(first))
        ]
        if not is_whole:
            foreign = [next((f for fields, _ in found for f in fields if f.foreign), None)] * len(first)
        self._refuse_taken_for(foreign, found, is_whole)
        merged = tuple(replace(f, name=own.name) if f else own for f, own in zip(foreign, first, strict=True))
        outputs = replace(place, levels=(*place.levels, ([Item("", merged, is_whole, is_hidden=True)], True)))
        self._expressions(stmt.sort_clause, outputs, SORTED)
        if not keeps_all(stmt) or has_positions(stmt.sort_clause):
            refuse_sorted(f for fields, _ in found for f in fields)
        self._expressions([stmt.limit_count, stmt.limit_offset], outputs, USED)
        return merged, is_whole

    @staticmethod
    def _refuse_taken_for(foreign: Sequence[Field | None], statements: Sequence[Output], is_whole: bool) -> None:
        """Refuse text that is written out and would be read as a foreign type, as another SELECT of a UNION has one."""
        for place, wanted in enumerate(foreign):
            beside = [fields[place].foreign if is_whole and place < len(fields) else None for fields, _ in statements]
            if wanted is not None and any(kind != wanted.foreign for kind in beside):
                raise untrusted_type(wanted.foreign or "")

    def _single(self, stmt: Any, place: Place) -> Output:
        for row in stmt.values_lists:
            self._expressions(row.list.items, place, USED)
        if stmt.values_lists:
            fields = tuple(Field(f"column{n + 1}") for n in range(len(stmt.values_lists[0].list.items)))
            self._expressions(stmt.sort_clause, place.inside([Item("", fields, is_hidden=True)]))
            self._expressions([stmt.limit_count, stmt.limit_offset], place, USED)
            return fields, True
        level = list[Item]()
        inner = place.inside(level)
        conditions = list[Any]()
        from_place = replace(place.inside(level, is_certain=False), is_operand=False)
        for item in stmt.from_clause:
            self._from(item, level, from_place, conditions)
        self._expressions(conditions, from_place, USED)
        targets = [target.res_target.val for target in stmt.target_list]
        self._expressions(targets, inner, USED if place.is_operand else SHOWN)
        output = self._outputs(stmt, level, inner)
        named = inner.inside([Item("", *output, is_hidden=True)])  # A sort may be by a name of the result.
        ordered = [*stmt.distinct_clause, *stmt.group_clause, *stmt.sort_clause]
        self._expressions([*ordered, *stmt.window_clause], named, SORTED)
        if has_positions(ordered):
            refuse_sorted(output[0])
        self._expressions([stmt.where_clause, stmt.having_clause, stmt.limit_count, stmt.limit_offset], inner, USED)
        return output

    def _common(self, stmt: Any, place: Place) -> dict[str, Item]:
        """The common tables that are seen inside a statement."""
        tables = dict(place.tables)
        ctes = [node.common_table_expr for node in stmt.with_clause.ctes]
        if stmt.with_clause.recursive:
            tables |= {c.ctename: Item(c.ctename, (), is_whole=False, is_pending=True) for c in ctes}
        for cte in ctes:
            inner = replace(place, tables=tables, is_operand=False)
            names = strings(cte.aliascolnames)
            own = (cte.ctename, names) if stmt.with_clause.recursive else None
            fields, is_whole = self.statement(cte.ctequery.select_stmt, inner, own)
            fields = _renamed(fields, is_whole, names)
            if cte.HasField("search_clause"):
                fields = (*fields, Field(cte.search_clause.search_seq_column))
            if cte.HasField("cycle_clause"):
                fields = (*fields, Field(cte.cycle_clause.cycle_mark_column), Field(cte.cycle_clause.cycle_path_column))
            tables[cte.ctename] = Item(cte.ctename, fields, is_whole)
        return tables

    def _from(self, node: Any, level: list[Item], place: Place, conditions: list[Any]) -> None:
        """Put what an item of a FROM shows into its level; conditions are looked at when all of it is known."""
        waiting, joins, before = [node], list[Any](), len(level)
        while waiting:
            item = waiting.pop()
            kind = item.WhichOneof("node")
            if kind == "join_expr":
                joins.append(item.join_expr)
                conditions.append(item.join_expr.quals)
                waiting += [item.join_expr.rarg, item.join_expr.larg]
            else:
                level.append(self._leaf(kind, getattr(item, kind), place, conditions))
        for join in reversed(joins):
            self._join(join, level, before)

    def _join(self, join: Any, level: list[Item], before: int) -> None:
        items, using = level[before:], strings(join.using_clause)
        columns = [f for item in items for f in item.fields if f.foreign and f.name != ROW]
        for f in (f for f in columns if join.is_natural or f.name in using):
            raise untrusted_type(f.foreign or "")
        if join.HasField("join_using_alias"):
            level.append(Item(join.join_using_alias.aliasname, tuple(Field(name) for name in using)))
        if join.HasField("alias"):
            fields = tuple(f for item in items for f in item.fields if f.name not in _SYSTEM)
            level[before:] = [replace(item, is_hidden=True) for item in items]
            names = strings(join.alias.colnames)
            level.append(Item(join.alias.aliasname, _renamed(fields, False, names), is_whole=False))

    def _leaf(self, kind: str, node: Any, place: Place, conditions: list[Any]) -> Item:
        names = strings(node.alias.colnames) if kind != "range_table_sample" else []
        match kind:
            case "range_table_sample":
                conditions += [*node.args, node.repeatable]
                return self._relation(node.relation.range_var, place)
            case "range_var":
                return self._relation(node, place)
            case "range_subselect":
                fields, is_whole = self.statement(node.subquery.select_stmt, place)
                return Item(node.alias.aliasname, _renamed(fields, is_whole, names), is_whole)
            case "range_function":
                return self._function(node, names, conditions)
            case "range_table_func":
                columns = [column.range_table_func_col.colname for column in node.columns]
            case "json_table":
                columns = [n.name for n in nodes(node) if n.DESCRIPTOR.name == "JsonTableColumn" and n.name]
            case _:
                raise refused(
                    "The query reads from something that is not known to only read.", "query.forbidden_function"
                )
        conditions.append(node)
        return Item(node.alias.aliasname, _renamed(tuple(Field(c) for c in columns), True, names))

    def _relation(self, node: Any, place: Place) -> Item:
        self._seen.append(node)
        alias = node.alias.aliasname if node.HasField("alias") else node.relname
        names = strings(node.alias.colnames)
        if not node.schemaname and node.relname in place.tables:
            item = place.tables[node.relname]
            if item.is_pending and self._has_foreign:
                raise refused(f"The table {node.relname} is defined below where it is used; write it above.")
            return replace(item, alias=alias, fields=_renamed(item.fields, item.is_whole, names), is_pending=False)
        named = (node.schemaname, node.relname)
        self.relations.append((node, named))
        found = self._known.relations.get(named) if self._known is not None else None
        if found is None:
            return Item(alias, tuple(Field(name) for name in names), is_whole=False)
        return Item(alias, (*_renamed(found.fields, True, names), *(Field(name) for name in _SYSTEM)))

    def _function(self, node: Any, names: Sequence[str], conditions: list[Any]) -> Item:
        calls = [item.list.items[0] for item in node.functions]
        conditions += calls
        defined = [c.column_def.colname for c in node.coldeflist]
        defined += [c.column_def.colname for item in node.functions for c in item.list.items[1].list.items]
        functions = [strings(c.func_call.funcname)[-1] for c in calls if c.WhichOneof("node") == "func_call"]
        self.sources.update(functions)
        alias = node.alias.aliasname or (functions[0] if functions else "")
        outputs = self._known.outputs if self._known is not None else {}
        columns = defined or [name for function in functions for name in outputs.get(function, ())]
        if not columns and len(calls) == 1 and functions and functions[0] in _ONE_COLUMN:
            columns = [alias]
        is_whole = len(calls) == 1 and bool(columns)
        fields = tuple(Field(name) for name in (*columns, *(("ordinality",) if node.ordinality else ())))
        return Item(alias, _renamed(fields, is_whole, names), is_whole)

    def _expressions(self, items: Iterable[Any], place: Place, use: str = SHOWN) -> None:
        """Check the names in expressions, of which the whole may be a column of any type where it is only shown."""
        waiting: list[tuple[Any, str]] = [(item, use) for item in items]
        while waiting:
            node, use = waiting.pop()
            match node.DESCRIPTOR.name:
                case "SelectStmt":
                    self.statement(node, replace(place, is_operand=False))
                    continue
                case "SubLink":
                    is_operand = node.sub_link_type != _EXISTS
                    self.statement(node.subselect.select_stmt, replace(place, is_operand=is_operand))
                    waiting.append((node.testexpr, USED))
                    continue
                case "ColumnRef":
                    self._column(node, place, use)
                    continue
                case "A_Indirection":
                    self._selection(node)
            waiting += below(node, use)

    def _selection(self, node: Any) -> None:
        self._seen.append(node)
        names = strings(node.indirection)
        self.selected.update(names)
        for name in names:
            if self._is_callable(name):
                raise forbidden(name)

    def _is_callable(self, name: str) -> bool:
        if self._known is not None:
            return name in self._known.callable
        return name in FUNCTIONS or name in TYPES or KNOWN_TO_REACH.fullmatch(name) is not None

    def _column(self, node: Any, place: Place, use: str) -> None:
        self._seen.append(node)
        names, is_star = strings(node.fields), node.fields[-1].WhichOneof("node") == "a_star"
        if is_star:
            items = self._items(names[-1], place) if names else place.levels[-1][0] if place.levels else []
            shown = [f for item in items for f in item.fields]
        elif len(names) == 1:
            shown = self._named(names[0], place)
        else:
            self.selected.add(names[-1])
            items = self._items(names[-2], place)
            self._refuse_call(names[-1], items)
            shown = [f for item in items for f in item.fields if f.name == names[-1]]
        for found in shown:
            if found.foreign and (
                use == USED or (use == CAST and not found.may_cast) or (use == SORTED and found.sorts)
            ):
                raise untrusted_type(found.foreign)

    def _named(self, name: str, place: Place) -> list[Field]:
        """The columns of a name; of one that is none, but perhaps of the result, those of the row that it means."""
        shown = [(item, f) for level, _ in place.levels for item in level for f in item.fields if f.name == name]
        row = [] if any(item.alias for item, _ in shown) else self._items(name, place)
        return [*(f for _, f in shown), *(f for item in row for f in item.fields)]

    def _refuse_call(self, name: str, items: Sequence[Item]) -> None:
        """Refuse a name that is one of a function, unless it is a column of whatever it may be selected from."""
        has = [any(f.name == name for f in item.fields) for item in items]
        if not self._is_callable(name) or (has and all(has)):
            return
        is_unknown = self._known is None and any(not item.is_whole for item in items)
        if not is_unknown or KNOWN_TO_REACH.fullmatch(name):
            raise forbidden(name)

    def _items(self, alias: str, place: Place) -> list[Item]:
        """All that a name of a FROM may mean."""
        found = list[Item]()
        for level, is_certain in reversed(place.levels):
            here = [item for item in level if item.alias == alias]
            found += here
            if is_certain and any(not item.is_hidden for item in here):
                break
        return found

    def _outputs(self, stmt: Any, level: list[Item], place: Place) -> Output:
        fields, is_whole = list[Field](), True
        for target in stmt.target_list:
            value, kind = target.res_target.val, target.res_target.val.WhichOneof("node")
            if kind == "column_ref" and value.column_ref.fields[-1].WhichOneof("node") == "a_star":
                names = strings(value.column_ref.fields)
                items = self._items(names[-1], place) if names else [item for item in level if not item.is_hidden]
                is_whole = (
                    is_whole and all(item.is_whole for item in items) and len(items) == (1 if names else len(level))
                )
                fields += [f for item in items for f in item.fields if f.name not in _SYSTEM]
            elif kind == "a_indirection" and value.a_indirection.indirection[-1].WhichOneof("node") == "a_star":
                is_whole = False
            else:
                fields.append(replace(self._field(value, place), name=target.res_target.name or name_of(value)))
        return tuple(fields), is_whole

    def _field(self, value: Any, place: Place) -> Field:
        names = strings(value.column_ref.fields) if value.WhichOneof("node") == "column_ref" else []
        if not names:
            return Field("")
        if names[1:]:
            fields = [f for item in self._items(names[-2], place) for f in item.fields if f.name == names[-1]]
        else:
            fields = self._named(names[0], place)
        foreign = [f for f in fields if f.foreign]
        return next((f for f in foreign if f.sorts), foreign[0]) if foreign else Field("")


def _renamed(fields: Sequence[Field], is_whole: bool, names: Sequence[str]) -> tuple[Field, ...]:
    """Fields under other names, as far as there are some; of others that may be among them nothing is known."""
    if not names:
        return tuple(fields)
    if not is_whole:
        foreign = next((f for f in fields if f.foreign), None)
        return tuple(replace(foreign, name=name) if foreign else Field(name) for name in names)
    return (*(replace(f, name=name) for f, name in zip(fields, names, strict=False)), *fields[len(names) :])


def name_of(value: Any) -> str:
    """The name that Postgres gives to a column of a result, where that is plain to see."""
    while True:
        match value.WhichOneof("node"):
            case "column_ref":
                return (strings(value.column_ref.fields) or [""])[-1]
            case "func_call":
                return strings(value.func_call.funcname)[-1]
            case "a_indirection":
                if selected := strings(value.a_indirection.indirection):
                    return selected[-1]
                value = value.a_indirection.arg
            case "type_cast":
                value = value.type_cast.arg
            case _:
                return ""
