"""Names of parameters in a text, by DuckDB's own tokens: `:name` and `$name` become the `$p_name` that is bound."""

import re
from functools import cache

from domain.errors import QueryRefusedError
from infrastructure.queries.duckdb_parsing import fold, keywords, tokens_of, unparsable

PREFIX = "p_"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACKETS = {")": "(", "]": "[", "}": "{"}
# Not reserved, and yet what stands behind them is a value.
_BEFORE_VALUES = frozenset({"between", "by", "like", "ilike", "glob", "similar", "escape"})


@cache
def _reserved() -> frozenset[str]:
    return keywords() | _BEFORE_VALUES


def with_bound_names(text: str, names: frozenset[str] | None) -> str:
    """Give a text whose parameters are `$p_name`; any name is one where none are given.

    Raises:
        QueryRefusedError: a name without a parameter (`query.parameter_missing`), one that may be something else
            (`query.unparsable`), or what cannot be parsed.
    """
    tokens = tokens_of(text)
    parts = [token for token, _ in tokens]
    if "".join(parts) != text:
        raise unparsable()
    open_brackets: list[str] = []
    before = ("", "operator")
    for place, (token, kind) in enumerate(tokens):
        sign = token.strip()
        if kind == "operator" and sign in (":", "$") and token == sign and place + 1 < len(tokens):
            name = _NAME.match(parts[place + 1])
            if name is not None and tokens[place + 1][1] in ("identifier", "keyword"):
                is_free = _is_free(before, open_brackets) or sign == "$"
                parts[place] = _placed(sign, name[0], names, is_free=is_free)
        if kind == "operator" and sign in ("(", "[", "{"):
            open_brackets.append(sign)
        elif kind == "operator" and sign in _BRACKETS and open_brackets:
            open_brackets.pop()
        if kind not in ("comment", "blank"):
            before = (sign, kind)
    return "".join(parts)


def _is_free(before: tuple[str, str], open_brackets: list[str]) -> bool:
    """Whether a colon cannot belong to a slice, a struct or an alias before its value."""
    if open_brackets and open_brackets[-1] != "(":
        return False
    sign, kind = before
    return (kind == "operator" and sign not in _BRACKETS) or fold(sign) in _reserved()


def _placed(sign: str, name: str, names: frozenset[str] | None, *, is_free: bool) -> str:
    if not is_free:
        if names is not None and name in names:
            raise QueryRefusedError(
                f"The query's :{name} may also be read as a part of a list, of a struct, or as an alias: write "
                f"${name}.",
                code="query.unparsable",
            )
        return sign
    if names is not None and name not in names:
        raise QueryRefusedError(
            f"The query uses {sign}{name}, which is not among the parameters.", code="query.parameter_missing"
        )
    return f"${PREFIX}"
