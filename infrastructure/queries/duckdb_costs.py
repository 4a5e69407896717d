"""What takes far longer than the size of what it is given: texts that are compared letter by letter, patterns within
patterns.

DuckDB works on 2,048 rows before it looks whether it is to stop, so a second for each of them cannot be ended for half
an hour.
"""

from collections.abc import Collection
from typing import Any

from infrastructure.queries.duckdb_calls import text_of
from infrastructure.queries.duckdb_patterns import FREE, WORN, Patterns, weight_of
from infrastructure.queries.duckdb_series import constant

Node = dict[str, Any]
COMPARED = frozenset({"levenshtein", "damerau_levenshtein", "editdist3", "jaro_similarity", "jaro_winkler_similarity"})
MAX_COMPARED = 1_000
"""Bytes of a text that may be compared with each letter of another."""
MAX_MATCHED = 400_000
"""Bytes of a text, times the places of a pattern that any of them may be at."""
_FREE_TOGETHER = 4 * FREE
_QUICK = 4_000
"""Letters of patterns that are read in a few milliseconds."""
_PATTERNS = frozenset(
    {
        *("regexp_matches", "regexp_full_match", "regexp_replace", "regexp_extract", "regexp_extract_all"),
        *("string_split_regex", "str_split_regex", "regexp_split_to_array", "regexp_split_to_table"),
    }
)
_FINDING_ALL = _PATTERNS - {"regexp_matches", "regexp_full_match", "regexp_replace", "regexp_extract"}
_AGAIN = 200
"""Places of a pattern for which a text may be read once for each of its matches."""
SLOW = COMPARED | _PATTERNS
_WILDCARDS = frozenset(
    {"~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"}
)
_LETTERS_IN_A_PLACE = 12
"""Letters of a pattern of LIKE or GLOB that are compared in the time that a place of a regular expression takes."""
GATHERING = frozenset(
    {"string_agg", "listagg", "group_concat", "list", "array_agg", "array_to_string", "list_aggregate", "histogram"}
)
"""What they give may be far longer than any text that there is."""
_CUT = {"left": 1, "right": 1, "substr": 2, "substring": 2}
_KEEPING = frozenset({"lower", "upper", "lcase", "ucase", "trim", "ltrim", "rtrim", "reverse"})
_LONGEST_CHARACTER = 4


def slowness(name: str, arguments: list[Node], patterns: Patterns, *, is_source: bool) -> float:
    """What part of what a text may take each of its bytes is; 0 where nothing takes longer than its size."""
    if name in COMPARED:
        return 1 / MAX_COMPARED
    if name not in _PATTERNS | _WILDCARDS or len(arguments) < 2:
        return 0.0
    pattern = text_of(arguments[1]["expression"])
    if name in _WILDCARDS:
        # By another column a source may be filtered, as it always was; such a step runs where it can be ended.
        places = len(pattern) / _LETTERS_IN_A_PLACE if pattern is not None else 0.0 if is_source else WORN
        return places / MAX_MATCHED if places > FREE else 0.0
    if pattern is None:
        return WORN / MAX_MATCHED
    written = pattern.encode("latin-1").decode(errors="replace")
    behind = 3 if name == "regexp_replace" else 2
    options = _options([argument["expression"] for argument in arguments[behind:]])
    places = max(repetitions_within(pattern), patterns.places(written, name, options))
    finds_all = name in _FINDING_ALL or (name == "regexp_replace" and (options is None or "g" in options))
    if finds_all and patterns.reads_again(written, options, if_unknown=not is_source):
        places = max(places, _AGAIN)
    return places / MAX_MATCHED


def _options(expressions: list[Node]) -> str | None:
    """All letters that may be options of a call, whichever argument they are; None where they are not written."""
    if any(expression.get("class") != "CONSTANT" for expression in expressions):
        return None
    return "".join(text_of(expression) or "" for expression in expressions)


def is_slow_pattern(pattern: str, patterns: Patterns) -> bool:
    """Whether matching whole texts with a pattern takes far longer than their size."""
    return repetitions_within(pattern) > FREE or patterns.places(pattern, "regexp_full_match") > 0


def may_be_slow_patterns(patterns: Collection[str]) -> bool:
    """Whether patterns have to be looked at closer, or take long to be made ready; that is quick to tell."""
    if sum(map(len, patterns)) > _QUICK:
        return True
    weights = [max(repetitions_within(pattern), weight_of(pattern)) for pattern in patterns]
    return max(weights, default=0) > FREE or sum(weights) > _FREE_TOGETHER


def too_long(name: str) -> str:
    """Why a query is refused that calls a function for texts that may be too long for it."""
    if name in _WILDCARDS:
        return (
            "A pattern of LIKE or GLOB here may take minutes for a row, in which DuckDB cannot be stopped: make it "
            "shorter."
        )
    return (
        f"{name} may take minutes for a row here, in which DuckDB cannot be stopped: give it texts that are cut, as "
        f"in {name}(left(a, {MAX_COMPARED // _LONGEST_CHARACTER}), …), or a pattern with smaller numbers of "
        "repetitions, and none within others."
    )


def most_of(node: Node) -> float | None:
    """How many bytes a text has at most, where that is written: of a literal, or of what is cut from another text."""
    text = text_of(node)
    if text is not None:
        return float(len(text))
    if node.get("class") != "FUNCTION":
        return None
    name = str(node.get("function_name", "")).lower()
    given = [argument["expression"] for argument in node.get("arguments", ())]
    if name in _KEEPING and given:
        return most_of(given[0])
    if name in _CUT and len(given) > _CUT[name]:
        count = constant(given[_CUT[name]])
        return count * _LONGEST_CHARACTER if count is not None and count >= 0 else None
    return None


def repetitions_within(pattern: str) -> float:
    """How many places there are in repetitions of a written number of what is repeated itself."""
    groups: list[tuple[float, bool]] = [(0.0, False)]
    last, most, at = (0.0, False), 0.0, 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "(":
            groups.append((0.0, False))
            last = (0.0, False)
            if pattern[at : at + 1] == "?":  # (?:…), (?i), (?P<name>…)
                at = min((end for sign in ":>)" if (end := pattern.find(sign, at)) >= 0), default=len(pattern))
                at += pattern[at : at + 1] != ")"
            continue
        if sign == ")" and len(groups) > 1:
            last = groups.pop()
        elif sign in "*+?":
            last = (last[0], True)
            groups[-1] = (groups[-1][0], True)
            continue
        elif sign == "{" and (found := _times(pattern, at)) is not None:
            count, at = found
            more = last[0] * (count - 1)
            most = max(most, last[0] * count if last[1] else 0.0)
            last = (last[0] * count, True)
            groups[-1] = (groups[-1][0] + more, True)
            continue
        else:
            at = _behind_class(pattern, at) if sign == "[" else at + (sign == "\\")
            last = (1.0, False)
        groups[-1] = (groups[-1][0] + last[0], groups[-1][1] or last[1])
    return most


def _times(pattern: str, at: int) -> tuple[float, int] | None:
    end = pattern.find("}", at)
    numbers = pattern[at:end].split(",") if 0 <= end - at <= 20 else []
    if not 1 <= len(numbers) <= 2 or not all(part.isascii() and (part.isdigit() or not part) for part in numbers):
        return None
    written = [float(part) for part in numbers if part]
    return (max(1.0, *written) if written else 1.0), end + 1


def _behind_class(pattern: str, at: int) -> int:
    """Where a class of characters ends; its first one may be its closing bracket."""
    at += pattern[at : at + 1] == "^"
    at += pattern[at : at + 1] == "]"
    while at < len(pattern) and pattern[at] != "]":
        at += 1 + (pattern[at] == "\\")
    return at + 1
