"""How large what a function gives may be, by its arguments; what makes something by a number has it written out."""

import re
from typing import Any

from infrastructure.queries.duckdb_found import MakesTooMuchError, forbidden_function, unknown
from infrastructure.queries.duckdb_names import (
    AGGREGATES,
    BY_NAME,
    CASED,
    COUNTED,
    FORMATS,
    KEPT,
    MAX_MADE_ITEMS,
    MULTIPLIED,
    SERIES,
)
from infrastructure.queries.duckdb_names import (
    FIXED as FIXED_NAMES,
)
from infrastructure.queries.duckdb_parsing import fold
from infrastructure.queries.duckdb_series import constant, length
from infrastructure.queries.duckdb_sizes import FIXED, Size, added, product, times

Node = dict[str, Any]
_LONGEST_CHARACTER = 4.0
_WIDTH = re.compile(r"[0-9]+")
_NESTED = re.compile(r"\{[^{}]*\{|\*")


def size_of_call(name: str, arguments: list[Node], sizes: list[Size]) -> Size:
    """How large the value of a call may be.

    Raises:
        QueryRefusedError: a number that is not written out, or too great (`query.too_large`).
    """
    expressions = [argument["expression"] for argument in arguments]
    if name in BY_NAME:
        called = fold(text_of(expressions[1]) if len(expressions) > 1 else None)
        if called not in AGGREGATES:
            raise forbidden_function(called)
    if name in COUNTED or name in SERIES or name in FORMATS:
        if any(argument.get("name") for argument in arguments):
            unknown(f"{name} with named arguments")
        return _made(name, expressions, sizes)
    if name in KEPT:
        if _has_wildcard(name, expressions):
            return product(added([*sizes, FIXED]), added([*sizes, FIXED]))
        is_cased = name in CASED and expressions and fold(expressions[0].get("function_name", "")) in CASED
        return times(added([*sizes, FIXED]), 1 if is_cased else KEPT[name])
    if name in MULTIPLIED:
        return _multiplied(name, expressions, sizes)
    if name in AGGREGATES:
        return added([*sizes, FIXED])
    return FIXED if name in FIXED_NAMES else added([*sizes, FIXED])


def _made(name: str, expressions: list[Node], sizes: list[Size]) -> Size:
    if name in FORMATS:
        return _formatted(name, expressions, sizes)
    if name in SERIES:
        count = length(expressions)
    else:
        place = COUNTED[name]
        if name in ("bar", "to_base") and len(expressions) <= place:
            return times(FIXED, 20)
        count = constant(expressions[place]) if len(expressions) > place else None
    if count is None or abs(count) > MAX_MADE_ITEMS:
        raise MakesTooMuchError(
            f"What {name} makes has to be bounded where it is written: by numbers written out, of at most "
            f"{MAX_MADE_ITEMS:,}."
        )
    if name in SERIES:
        return times(FIXED, max(count, 1))
    if name == "repeat":
        return times(added([sizes[0], FIXED]), max(count, 1))
    is_list = name in ("list_resize", "array_resize")
    item = added([FIXED, *sizes[2:]][-1:]) if is_list else (_LONGEST_CHARACTER, 0.0, 0.0)
    return added([sizes[0], times(item, max(count, 1))])


def _multiplied(name: str, expressions: list[Node], sizes: list[Size]) -> Size:
    """One argument for each part of another: so many times, where it is written out."""
    whole = added([*sizes, FIXED])
    texts = [text_of(expression) for expression in expressions]
    if name == "replace" and len(texts) == 3 and texts[1] is not None and texts[2] is not None:
        return times(added([sizes[0], FIXED]), max(1.0, len(texts[2]) / max(1, len(texts[1]))))
    if name == "regexp_replace" and len(texts) > 2 and texts[2] is not None:
        return times(added([sizes[0], FIXED]), 1 + len(texts[2]) + texts[2].count("\\") if texts[2] else 1)
    if name == "concat_ws" and texts and texts[0] is not None:
        return times(whole, 1 + len(texts[0]))
    if name == "array_to_string" and len(texts) > 1 and texts[1] is not None:
        return times(whole, 4 + len(texts[1]))
    if name == "json_pretty":
        return product(whole, whole)
    return added([whole, product(sizes[0] if sizes else FIXED, added([*sizes[1:], FIXED]))])


def text_of(node: Node) -> str | None:
    """A text that is written out, as its bytes one by one; None for anything else."""
    literal = node.get("literal", {}) if node.get("class") == "CONSTANT" else {}
    return str(literal.get("text", "")).encode().decode("latin-1") if literal.get("kind") == "STRING" else None


def _formatted(name: str, expressions: list[Node], sizes: list[Size]) -> Size:
    literal = expressions[0].get("literal", {}) if expressions and expressions[0].get("class") == "CONSTANT" else {}
    text = str(literal.get("text", ""))
    widths = [int(found[:10]) for found in _WIDTH.findall(text)]
    if literal.get("kind") != "STRING" or _NESTED.search(text) or sum(widths) > MAX_MADE_ITEMS:
        raise MakesTooMuchError(
            f"The pattern of {name} has to be written out, with widths of at most {MAX_MADE_ITEMS:,} together and none "
            "that comes from an argument."
        )
    places = text.count("{") + text.count("%") + 1
    return times(added([*sizes, FIXED, (float(sum(widths)) * 4, 0.0, 0.0)]), places * 4)


def _has_wildcard(name: str, expressions: list[Node]) -> bool:
    """Whether a path into JSON may find a value several times over."""
    if not (name.startswith("json_extract") or name in ("->", "->>", "json_value")):
        return False
    path = expressions[-1] if expressions else {}
    is_place = path.get("literal", {}).get("kind") == "INTEGER"
    return not is_place and "*" in (text_of(path) or "*")
