"""Two columns of one name, which DuckDB renames without a word where a query stands within another: whoever reads the
name gets the one that was there before.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidInputError
from infrastructure.queries.duckdb_parsing import Node, fold, parsed, parts_of
from infrastructure.sql import quote

Describe = Callable[[Node, Mapping[str, Any]], Sequence[str] | None]
"""The names of what a query gives, with its parameters; None where it cannot be planned."""
_UNKNOWN = "_headrace_doubled"
_PLAIN_NAME = re.compile("[a-z_][a-z0-9_]*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class _Inner:
    """A query within another, where its columns may be given other names, and the common tables before it."""

    node: Node
    place: Node
    key: str
    seen: tuple[Node, ...]


def refuse_doubled(names: Iterable[str], *, code: str) -> None:
    """Refuse columns of one name.

    Raises:
        InvalidInputError: two names are equal, letter case aside.
    """
    if (both := _doubled(names)) is not None:
        raise doubled_column(both, code=code)


def doubled_column(both: tuple[str, str], *, code: str) -> InvalidInputError:
    """The refusal of two columns of one name."""
    first, second = both
    named = first if first == second else f"{first} and {second}, which differ in nothing but letter case"
    spelled = first if _PLAIN_NAME.fullmatch(first) else quote(first)
    return InvalidInputError(
        f"Two columns are named {named}: write * REPLACE (… AS {spelled}) to change the one that is there, "
        f"* EXCLUDE ({spelled}) to leave it out, or give one another name.",
        code=code,
    )


def may_double_within(tree: Node) -> bool:
    """Whether a query within this one may give two columns one name, by what is written."""
    return any(_may_double(inner) for inner in _inner(tree))


def doubled_within(text: str, parameters: Mapping[str, Any], describe: Describe) -> tuple[str, str] | None:
    """Two columns of one name in a query within this one, of which something beyond it is made.

    Those that nobody names do no harm, such as both keys of a join. So they get names that nobody knows: where the
    whole cannot be planned any more, or gives one of them, they were named.
    """
    tree = parsed(text)
    if describe(tree, parameters) is None:
        return None  # The store says so.
    for inner in filter(_may_double, _inner(tree)):
        names = describe(*_alone(inner, parameters))
        if names is None:
            continue  # It looks at what is around it.
        given = [str(name) for name in inner.place.get(inner.key, ())]
        names = [*given, *names[len(given) :]]
        doubled = list(_all_doubled(names))

        def is_named(some: Sequence[tuple[str, str]], inner: _Inner = inner, names: Sequence[str] = names) -> bool:
            hidden = {first.lower() for first, _ in some}
            unknown = [f"{_UNKNOWN}_{n}" if name.lower() in hidden else name for n, name in enumerate(names)]
            found = _with_names(tree, inner, unknown, parameters, describe)
            return found is None or any(name.startswith(_UNKNOWN) for name in found)

        if doubled and is_named(doubled):
            while len(doubled) > 1:  # Which of perhaps hundreds that two wide tables share.
                half = doubled[: len(doubled) // 2]
                doubled = half if is_named(half) else doubled[len(half) :]
            return doubled[0]
    return None


def _with_names(
    tree: Node, inner: _Inner, names: Sequence[str], parameters: Mapping[str, Any], describe: Describe
) -> Sequence[str] | None:
    """What the whole gives where the columns of a query within it have these names."""
    place, kept = inner.place, dict(inner.place)
    place[inner.key] = names
    if inner.key == "column_name_alias" and not place.get("alias"):
        place["alias"] = f"{_UNKNOWN}_query"  # What has no name has no other names of its columns.
    found = describe(tree, parameters)
    place.clear()
    place |= kept
    return found


def _alone(inner: _Inner, parameters: Mapping[str, Any]) -> tuple[Node, dict[str, Any]]:
    """What gives a query within another its names, as a query by itself, and the parameters in it."""
    node, common = inner.node, {fold(item["key"]): item for item in inner.seen}
    while True:
        common |= {fold(item["key"]): item for item in _common_tables(node)}
        if (first := _first_of(node)) is None:
            break
        node = first
    whole = {**node, "cte_map": {"map": list(common.values())}}
    named = {part["identifier"] for part in parts_of(whole) if part.get("class") == "PARAMETER"}
    return whole, {name: value for name, value in parameters.items() if name in named}


def _may_double(inner: _Inner) -> bool:
    node = inner.node
    while (first := _first_of(node)) is not None:
        node = first
    items = node.get("select_list", ())
    if any(item.get("class") == "STAR" for item in items):
        return len(items) > 1 or node["from_table"].get("type") == "JOIN" or "rename_list" in items[0]
    written = [item.get("alias") or (item.get("column_names") or [""])[-1] for item in items]
    return _doubled(name for name in written if name) is not None


def _first_of(node: Node) -> Node | None:
    """The part of a query that gives it its names; None for a SELECT."""
    found: Node | None = node.get("left") or next(iter(node.get("children", ())), None)
    return found


def _inner(tree: Node) -> Iterator[_Inner]:
    """The common tables of a query and its subqueries behind FROM, and those in them."""
    waiting: list[tuple[Any, tuple[Node, ...]]] = [(tree, ())]
    while waiting:
        node, seen = waiting.pop()
        if isinstance(node, list):
            waiting += [(part, seen) for part in node]
        if not isinstance(node, dict):
            continue
        for item in _common_tables(node):
            value = item["value"]
            query = value.get("query_node") or value["query"]["node"]
            yield _Inner(query, value, "aliases", seen)
            is_recursive = query.get("type") == "RECURSIVE_CTE_NODE"
            waiting.append((query, (*seen, item) if is_recursive else seen))
            seen = (*seen, item)
        if node.get("type") == "SUBQUERY" and "class" not in node:
            yield _Inner(node["subquery"]["node"], node, "column_name_alias", seen)
        waiting += [(part, seen) for key, part in node.items() if key != "cte_map"]


def _common_tables(node: Node) -> Sequence[Node]:
    found: Sequence[Node] = node.get("cte_map", {}).get("map", ())
    return found


def _doubled(names: Iterable[str]) -> tuple[str, str] | None:
    return next(_all_doubled(names), None)


def _all_doubled(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.get(name.lower())) is not None:
            yield other, name
        else:
            seen[name.lower()] = name
