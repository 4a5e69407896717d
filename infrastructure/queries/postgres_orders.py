"""What the parts of a statement do with what they name: show, sort, cast or use it; some without naming it."""

from collections.abc import Iterable
from typing import Any

from infrastructure.queries.postgres_judging import untrusted_type
from infrastructure.queries.postgres_known import Field

_UNION = 2
# What a whole expression may be a column of a foreign type for: to be shown; to be sorted or grouped by; and what it
# may be cast for.
SHOWN, SORTED, CAST, USED = "shown", "sorted", "cast", "used"


def keeps_all(stmt: Any) -> bool:
    """Whether the statements of a UNION and the like are only put one after another."""
    waiting = [stmt]
    while waiting:
        part = waiting.pop()
        if part.HasField("larg"):
            if part.op != _UNION or not part.all:
                return False
            waiting += [part.larg, part.rarg]
    return True


def has_positions(items: Iterable[Any]) -> bool:
    """Whether columns are meant by their number, or all of them by none."""
    waiting = list(items)
    while waiting:
        item = waiting.pop()
        match item.WhichOneof("node"):
            case "sort_by":
                waiting.append(item.sort_by.node)
            case "grouping_set":
                waiting += item.grouping_set.content
            case None | "a_const":
                return True
    return False


def refuse_sorted(fields: Iterable[Field]) -> None:
    """Refuse columns that are sorted or compared by functions of somebody's.

    Raises:
        QueryRefusedError: `query.untrusted_type`.
    """
    for found in fields:
        if found.foreign and found.sorts:
            raise untrusted_type(found.foreign)


def arms(stmt: Any) -> list[Any]:
    """The statements of a UNION and the like, as far as those have no common tables or sort of their own."""
    found, waiting = list[Any](), [stmt.rarg, stmt.larg]
    while waiting:
        arm = waiting.pop()
        has_own = arm.HasField("with_clause") or arm.sort_clause
        if arm.HasField("larg") and not (has_own or arm.HasField("limit_count") or arm.HasField("limit_offset")):
            waiting += [arm.rarg, arm.larg]
        else:
            found.append(arm)
    return found


def below(node: Any, use: str) -> list[tuple[Any, str]]:
    """The messages right below one, each with what it is used for."""
    kind, found = node.DESCRIPTOR.name, list[tuple[Any, str]]()
    for part, value in node.ListFields():
        if part.message_type is None:
            continue
        match kind, part.name:
            case ("Node", _) | ("SortBy", "node") | ("GroupingSet", "content"):
                kept = use
            case ("WindowDef", "partition_clause" | "order_clause") | ("FuncCall", "agg_order"):
                kept = SORTED
            case ("NullTest", "arg"):
                kept = SHOWN
            case ("TypeCast", "arg"):
                kept = CAST
            case _:
                kept = USED
        found += [(child, kept) for child in (value if part.is_repeated else (value,))]
    return found
