"""A step, or a condition of a rule, that DuckDB works out for one row of `batch` at a time, and would for the same row
again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import InvalidInputError, QueryRefusedError
from domain.stores.table import INTERNAL_PREFIX, ORDINAL, Column
from infrastructure.queries.duckdb_found import Found
from infrastructure.queries.duckdb_names import CALLED_WITHOUT_BRACKETS
from infrastructure.queries.duckdb_parsing import Node, fold, parsed, parts_of, same, tokens_of, unparsable
from infrastructure.queries.duckdb_reading import candidates
from infrastructure.queries.duckdb_scope import Scope, Shape
from infrastructure.queries.duckdb_sizes import CELL, MAX_GROWTH, MAX_MADE_BESIDE, passes
from infrastructure.queries.duckdb_tree import Walk

_OURS = re.compile(rf"{ORDINAL}|{INTERNAL_PREFIX}_(failed|source|[0-9]+|violates_[0-9]+)", re.IGNORECASE)
_NAMING = ("alias", "table_name", "relation_name", "value", "column", "key", "name", "table")
_NAMING_MANY = ("column_names", "exclude_list", "column_name_alias")


@dataclass(frozen=True)
class Output:
    """What a step gives of the batch as it came: a column under a name, or every column but some."""

    name: str
    column: str | None
    without: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DuckDBStep:
    """A step that is row-wise."""

    text: str
    """What runs, over a relation `batch`; it carries the rows' ordinals."""
    columns: frozenset[str]
    """The names, in lower case, that it mentions without a relation before them."""
    outputs: tuple[Output, ...]
    row_name: str
    """What stands for the whole row, unless a column has the name."""
    is_size_preserving: bool
    """Whether each of its rows is about as large as the row that it comes of, and no value on the way much larger."""
    growth: float | None
    """How many times a column is in a row of the result at most, if that is known."""

    def carried(self, columns: Sequence[Column]) -> dict[str, Column]:
        """The column of the batch that each output repeats, by the output's name in lower case."""
        known = {column.name.lower(): column for column in columns}
        found: dict[str, Column] = {}
        for output in self.outputs:
            if output.column is not None:
                if output.column in known:
                    found[output.name] = known[output.column]
                continue
            every = {name: column for name, column in known.items() if name not in output.without}
            for old, new in output.renamed:
                if (column := every.pop(old, None)) is not None:
                    every[new] = column
            found |= every
        return found


@dataclass(frozen=True)
class DuckDBPredicate:
    """A condition that is row-wise."""

    text: str
    columns: frozenset[str]
    """As they are written."""
    is_size_preserving: bool


def read_step(text: str) -> DuckDBStep:
    """Look at a step.

    Raises:
        InvalidInputError: `transform.not_row_wise`, `transform.not_deterministic`, `transform.reserved_name`,
        `query.…`.
    """
    tree = parsed(text)
    walk, alias, shape = _row_wise(tree)
    if not any(fold(token.strip()) == "select" for token, kind in tokens_of(text) if kind == "keyword"):
        raise not_row_wise("FROM without SELECT")
    stars = [item for item in tree["select_list"] if item.get("class") == "STAR"]
    whole = [star for star in stars if fold(star.get("relation_name", "")) in ("", alias)]
    if len(whole) > 1:
        raise not_row_wise("more than one *")
    growth = _growth(tree["select_list"])
    names = sum(len(str(item.get("alias", "")).encode()) for item in tree["select_list"])
    made = shape.row[0] - max(names, CELL) if shape.row is not None else None
    return DuckDBStep(
        text=_carrying(text, tree, has_ordinal=bool(whole)),
        columns=frozenset(fold(path[0]) for path in walk.found.columns if len(path) == 1),
        outputs=tuple(output for item in tree["select_list"] if (output := _output(item, alias)) is not None),
        row_name=alias,
        is_size_preserving=(
            passes(walk.most)
            and not walk.found.slowness
            and growth is not None
            and growth <= MAX_GROWTH
            and made is not None
            and made <= MAX_MADE_BESIDE
        ),
        growth=growth,
    )


def read_predicate(expression: str) -> DuckDBPredicate:
    """Look at a condition: one expression, which stays one between brackets.

    Raises:
        InvalidInputError: as `read_step`.
    """
    if not expression.strip():
        raise QueryRefusedError("The expression is empty.", code="query.unparsable")
    tokens_of(expression)
    tree = parsed(f"SELECT (\n{expression}\n) AS verdict FROM batch")
    items = tree.get("select_list", [])
    if set(tree) - _KEPT_OF_PREDICATE or len(items) != 1 or items[0].get("alias") != "verdict" or _is_row(items[0]):
        raise unparsable("it is more than one expression")
    walk, _, _ = _row_wise(tree)
    bare = {key: value for key, value in items[0].items() if key != "alias"}
    denied = parsed(f"SELECT NOT (\n{expression}\n) AS verdict FROM batch").get("select_list", [{}])[0]
    if denied.get("type") != "OPERATOR_NOT" or not same(denied.get("children"), [bare]):
        raise unparsable("it is another expression within brackets")
    return DuckDBPredicate(
        text=expression,
        columns=frozenset(path[0] for path in walk.found.columns),
        is_size_preserving=passes(walk.most) and not walk.found.slowness,
    )


_KEPT_OF_PREDICATE = frozenset({"type", "cte_map", "select_list", "from_table", "aggregate_handling"})


def _is_row(node: Node) -> bool:
    """Whether brackets hold no expression, or several."""
    return node.get("class") == "STAR" or (node.get("class") == "FUNCTION" and node.get("function_name") == "row")


def _row_wise(tree: Node) -> tuple[Walk, str, Shape]:
    """Walk a tree, and refuse what looks at more than a row or would be another for the same row."""
    walk = Walk(is_bounded=False)
    shape = walk.query(tree)
    if tree.get("type") != "SELECT_NODE":
        raise not_row_wise("set operations")
    found, relation = walk.found, tree["from_table"]
    if found.features:
        raise not_row_wise(found.features[0])
    if found.types:
        raise QueryRefusedError(
            f"A step knows DuckDB's own types, and {min(found.types)[:60]} is none of them.",
            code="query.forbidden_type",
        )
    if [tuple(fold(part) for part in path) for path in found.relations] != [("batch",)]:
        raise not_row_wise("any relation other than batch")
    _refuse_unstable(found)
    for item in parts_of(tree):
        if item.get("class") == "STAR" and not any(item is chosen for chosen in tree["select_list"]):
            raise not_row_wise("* within an expression")
        _refuse_ours(item)
    return walk, fold(relation.get("alias") or relation["table_name"]), shape


def _growth(items: list[Node]) -> float | None:
    """How many times the column that is there most often is in a row of the result, by its part in each output."""
    total: dict[str, float] = {}
    for item in items:
        looking = Walk(is_bounded=False)
        parts = item.get("replace_list", ()) if item.get("class") == "STAR" else ({"value": item},)
        for part in parts:
            looking.expression(part["value"], Scope())
        for column in {fold(name) for path in looking.found.columns for name in path[:2]}:
            for part in parts:
                size = looking.expression(part["value"], Scope(only=column))
                if size is None or size[2]:
                    return None
                total[column] = total.get(column, 0) + size[1]
    return max([0.0, *total.values()]) + float(sum(item.get("class") == "STAR" for item in items))


def _refuse_unstable(found: Found) -> None:
    if not found.unstable:
        return
    name = min(found.unstable)
    column = f" (a column of this name is batch.{name})" if name in CALLED_WITHOUT_BRACKETS else ""
    raise InvalidInputError(
        f"{name} gives another result when a run is resumed{column}; use it in the source query, or the metadata "
        "columns.",
        code="transform.not_deterministic",
    )


def _refuse_ours(node: Node) -> None:
    named = [node.get(key) for key in _NAMING] + [name for key in _NAMING_MANY for name in node.get(key) or ()]
    for name in named:
        if isinstance(name, str) and _OURS.fullmatch(name):
            raise InvalidInputError(f"{name.lower()} is a name of Headrace's own.", code="transform.reserved_name")


def not_row_wise(words: str) -> InvalidInputError:
    """The refusal of a step that looks at more than a row."""
    return InvalidInputError(
        f"A transform works row by row, so {words} cannot be used: the result would depend on where batches end. "
        "Put it into the source query.",
        code="transform.not_row_wise",
    )


def _carrying(text: str, tree: Node, *, has_ordinal: bool) -> str:
    """A text that gives what the step does and the rows' ordinals, proved to do so within the brackets that
    it runs in.
    """
    wanted = dict(tree)
    if not has_ordinal:
        ordinal = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": [ORDINAL]}
        wanted["select_list"] = [ordinal, *tree["select_list"]]
    around = parsed("SELECT * FROM (WITH batch AS (SELECT 1)\nSELECT 1\n) AS stepped")
    within = around["from_table"]["subquery"]
    within["node"] = {**wanted, "cte_map": within["node"]["cte_map"]}
    written = candidates(text, wanted)
    if not has_ordinal:
        written = [_with_ordinal(candidate) for candidate in written[:2]] + written[2:]
    for candidate in written:
        try:
            if same(parsed(f"SELECT * FROM (WITH batch AS (SELECT 1)\n{candidate}\n) AS stepped"), around):
                return candidate
        except QueryRefusedError:
            continue
    raise unparsable("it is another query within brackets")


def _with_ordinal(text: str) -> str:
    tokens = tokens_of(text)
    for place, (token, kind) in enumerate(tokens):
        if kind in ("comment", "blank"):
            continue
        if token.strip().lower() == "select":
            rest = "".join(part for part, _ in tokens[place + 1 :])
            return f'{"".join(part for part, _ in tokens[:place])}SELECT "{ORDINAL}", {rest}'
        break
    return text


def _output(item: Node, alias: str) -> Output | None:
    """What an output repeats of the batch; None for what an expression makes, such as a field of a struct."""
    if item.get("class") == "STAR":
        if fold(item.get("relation_name", "")) not in ("", alias):
            return None
        gone = [_lower(name) for name in item.get("exclude_list", ())]
        gone += [_lower(name.get("column", "")) for name in item.get("qualified_exclude_list", ())]
        gone += [_lower(replaced["key"]) for replaced in item.get("replace_list", ())]
        renamed = [(_lower(new["key"]["column"]), _lower(new["value"])) for new in item.get("rename_list", ())]
        return Output("", None, frozenset(gone), tuple(renamed))
    path = [_lower(name) for name in item.get("column_names", ())]
    if item.get("class") != "COLUMN_REF" or not (len(path) == 1 or (len(path) == 2 and path[0] == alias)):
        return None
    return Output(_lower(item.get("alias") or path[-1]), path[-1])


def _lower(name: object) -> str:
    return str(name).lower()
