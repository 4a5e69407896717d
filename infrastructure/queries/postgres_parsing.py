"""Text to tree and back by the parser of Postgres itself, and `:name` in a text."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from domain.errors import MissingExtraError, QueryRefusedError
from infrastructure.queries.bounds import MAX_NESTING, check_text

# Tried with a stack of 8 MiB: 4,000 signs in a row, or 1,000 selects in one another, still pass.
_MAX_CHAIN = 2_000
_OPENING, _CLOSING = frozenset({"ASCII_40", "ASCII_91", "ASCII_123"}), frozenset({"ASCII_41", "ASCII_93", "ASCII_125"})
_SETS = frozenset({"UNION", "INTERSECT", "EXCEPT"})
_ENDS_OPERAND = frozenset({"IDENT", "SCONST", "ICONST", "FCONST", "BCONST", "XCONST", "PARAM", "ASCII_41", "ASCII_93"})
_PLACES = frozenset(
    ["location", "stmt_location", "stmt_len", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end"]
)


def _postgast() -> Any:
    try:
        messages, postgast = import_module("google._upb._message"), import_module("postgast")
    except ModuleNotFoundError as error:
        raise MissingExtraError("postgres", "A query on Postgres") from error
    messages.SetAllowOversizeProtos(True)  # Without it a tree of a hundred levels cannot be read.
    return postgast


def refused(words: str, code: str = "query.unparsable") -> QueryRefusedError:
    """The refusal of a query."""
    return QueryRefusedError(words, code=code)


def tokens_of(text: str) -> list[tuple[str, int, int, int]]:
    """The tokens of a text as the engine reads it: name, kind of keyword, and where it begins and ends in bytes.

    Raises:
        QueryRefusedError: `query.unparsable`, `query.too_large`.
    """
    check_text(text)
    postgast = _postgast()
    try:
        scanned = postgast.scan(text)
    except postgast.PgQueryError as error:
        raise refused("The query cannot be parsed.") from error
    names = postgast.pg_query_pb2.Token.DESCRIPTOR.values_by_number
    found = [
        (names[t.token].name if t.token in names else f"ASCII_{t.token}", t.keyword_kind, t.start, t.end)
        for t in scanned.tokens
    ]
    _check_depth(token for token, *_ in found)
    data = text.encode()
    for token, _, start, end in found:
        if token in ("UIDENT", "USCONST"):
            raise refused("The query holds a U&\"…\" or U&'…' escape; write the characters.")
        if token == "C_COMMENT" and b"/*" in data[start + 2 : end]:
            raise refused("A comment of the query holds another one.")
    return found


def _check_depth(tokens: Iterable[str]) -> None:
    """Refuse what may make a tree too deep: brackets in brackets, and long chains between commas."""
    sets, chains, total = [0], [0], 0
    for token in tokens:
        if token in _OPENING:
            sets.append(0)
            chains.append(0)
        elif token in _CLOSING and len(chains) > 1:
            total -= chains.pop() + sets.pop()
        elif token == "ASCII_44":
            total -= chains[-1]
            chains[-1] = 0
        elif token in _SETS:  # A comma does not end a chain of these.
            sets[-1] += 4
            total += 4
        else:
            chains[-1] += 1
            total += 1
        if len(chains) > MAX_NESTING or total > _MAX_CHAIN:
            raise refused(
                f"The query is too deep: at most {MAX_NESTING} brackets are open at once, and {_MAX_CHAIN:,} words "
                "and signs follow one another without a comma. Put a part of it into a view, or write a list with IN.",
                "query.too_large",
            )


def numbered(text: str) -> tuple[str, tuple[str, ...]]:
    """Write `:name` and `$name` of a text as `$1`, `$2`, …; also return the names in that order.

    Raises:
        QueryRefusedError: where `:` may be something else (`query.unparsable`); as `tokens_of`.
    """
    tokens = tokens_of(text)
    data, names = text.encode(), list[str]()
    parts, done, square = list[bytes](), 0, list[bool]()
    for index, (token, _, start, end) in enumerate(tokens):
        if token in _OPENING:
            square.append(token != "ASCII_40")
        elif token in _CLOSING and square:
            square.pop()
        elif token == "PARAM":
            raise refused("The query holds a parameter without a name; write :name.")
        if token not in ("ASCII_58", "ASCII_36") or index + 1 == len(tokens):
            continue
        following, kind, name_start, name_end = tokens[index + 1]
        if name_start != end or not (following == "IDENT" or kind) or data[name_start : name_start + 1] == b'"':
            continue
        name = data[name_start:name_end].decode()
        before = tokens[index - 1][0] if index else ""
        if token == "ASCII_58" and (any(square) or before in _ENDS_OPERAND):
            raise refused(f"Here :{name} may be a parameter or a part of something else; write ${name}.")
        if name not in names:
            names.append(name)
        parts += [data[done:start], b" $%d " % (names.index(name) + 1)]
        done = name_end
    return b"".join([*parts, data[done:]]).decode(), tuple(names)


def parsed(text: str) -> Any:
    """The tree of one statement, as the message of it; `text` has passed `tokens_of`.

    Raises:
        QueryRefusedError: `query.unparsable`, `query.multiple_statements`.
    """
    postgast = _postgast()
    try:
        tree = postgast.parse(text)
    except postgast.PgQueryError as error:
        raise refused("The query cannot be parsed.") from error
    if not tree.stmts:
        raise refused("The query is empty.")
    if len(tree.stmts) > 1:
        raise refused("Only one statement is allowed.", "query.multiple_statements")
    return tree


def written(tree: Any) -> str:
    """The text of a tree, which Postgres reads as that very tree.

    Raises:
        QueryRefusedError: it would not (`query.unparsable`).
    """
    postgast = _postgast()
    try:
        text = str(postgast.deparse(tree))
        again = postgast.parse(text)
    except postgast.PgQueryError as error:
        raise refused("The query cannot be written as it was read.") from error
    if not same(tree, again):
        raise refused("The query is not read again as it is written; write it in a simpler way.")
    return text


def same(one: Any, other: Any) -> bool:
    """Whether two trees differ in nothing but where their parts were in the text; both forget those places."""
    for tree in (one, other):
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            for part, value in node.ListFields():
                if part.message_type is None:
                    if part.name in _PLACES:
                        node.ClearField(part.name)
                elif part.is_repeated:
                    waiting.extend(value)
                else:
                    waiting.append(value)
    return bool(one == other)


def nodes(tree: Any, *, until: str | None = None) -> Iterable[Any]:
    """Every message of a tree, from the top; nothing below one of the kind `until`, which is given itself."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if until is not None and node is not tree and node.DESCRIPTOR.name == until:
            continue
        for field, value in node.ListFields():
            if field.message_type is None:
                continue
            if field.is_repeated:
                waiting.extend(reversed(value))
            else:
                waiting.append(value)


def strings(items: Iterable[Any]) -> list[str]:
    """The names in a list of nodes."""
    return [item.string.sval for item in items if item.WhichOneof("node") == "string"]


def put_parameters(tree: Any, names: tuple[str, ...], render: Mapping[str, str]) -> None:
    """Put what `render` gives for a name, which is a text of ours, in the place of each `$n`.

    Raises:
        QueryRefusedError: a name is not among the parameters (`query.parameter_missing`).
    """
    for name in names:
        if name not in render:
            raise refused(f"The query uses :{name}, which is not among the parameters.", "query.parameter_missing")
    values = [
        parsed(f"SELECT {render[name]}").stmts[0].stmt.select_stmt.target_list[0].res_target.val for name in names
    ]
    for node in [n for n in nodes(tree) if n.DESCRIPTOR.name == "Node" and n.WhichOneof("node") == "param_ref"]:
        node.CopyFrom(values[node.param_ref.number - 1])
