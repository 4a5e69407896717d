"""What DuckDB's own parser makes of a text, as a tree to walk; no file, no catalog, nothing that was written runs."""

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import duckdb

from domain.errors import QueryRefusedError
from infrastructure.queries.bounds import MAX_NESTING, check_text, nested_too_deeply

Node = dict[str, Any]
MAX_EXPRESSION_DEPTH = 150
_PLACES = ("query_location", "query_location_length")
_OPENING, _CLOSING = frozenset(b"([{"), frozenset(b")]}")


class _Parser:
    """One in-memory instance for a process, which nothing can configure; a forked process makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._process = 0

    def ask(self, sql: str, text: str) -> str:
        """The one value of a statement about a text."""
        with self._lock:
            row = self._connected().execute(sql, [text]).fetchone()
        assert row is not None
        return str(row[0])

    def statements(self, text: str) -> list[duckdb.Statement]:
        with self._lock:
            found: list[duckdb.Statement] = self._connected().extract_statements(text)
        return found

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None or self._process != os.getpid():
            config: dict[str, Any] = {
                "memory_limit": "256MB",
                "threads": 1,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
            connection = duckdb.connect(":memory:", config=config)
            connection.execute(f"SET max_expression_depth = {MAX_EXPRESSION_DEPTH}")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            self._connection, self._process = connection, os.getpid()
        return self._connection


_PARSER = _Parser()


_FOLDING = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def fold(name: object) -> str:
    """A name as the engine compares it: of other letters than A to Z, both cases are two names."""
    return str(name).translate(_FOLDING)


def tokens_of(text: str) -> list[tuple[str, str]]:
    """The engine's own tokens, each with its kind, without comments; the blanks behind a token are a part of it.

    Raises:
        QueryRefusedError: brackets that do not match, or too many in one another (`query.unparsable`).
    """
    check_text(text)
    raw = text.encode()
    try:
        places = duckdb.tokenize(text)
    except (duckdb.Error, RuntimeError, UnicodeDecodeError) as error:
        raise unparsable() from error
    found: list[tuple[str, str]] = []
    depth = 0
    start = places[0][0] if places else len(raw)
    lead = raw[:start].decode(errors="replace")
    if lead:
        found.append((lead, "blank"))
    for number, (place, kind) in enumerate(places):
        end = places[number + 1][0] if number + 1 < len(places) else len(raw)
        token, name = raw[place:end].decode(errors="replace"), str(kind).rpartition(".")[2]
        found.append((token, name))
        if name != "operator":
            continue
        depth += (raw[place] in _OPENING) - (raw[place] in _CLOSING)
        if depth < 0:
            raise unparsable("a bracket closes that none has opened")
        if depth > MAX_NESTING:
            raise nested_too_deeply()
    if depth:
        raise unparsable("a bracket is not closed")
    return found


def parsed(text: str) -> Node:
    """The tree of the one SELECT that a text is, without the places of its parts.

    Raises:
        QueryRefusedError: `query.unparsable`, `query.multiple_statements`, `query.not_readonly`, `query.too_large`.
    """
    tokens_of(text)
    try:
        tree = json.loads(_PARSER.ask("SELECT json_serialize_sql($1, skip_default := true)", text))
    except duckdb.Error as error:
        raise unparsable(_why(str(error))) from error
    except (RecursionError, ValueError) as error:
        raise nested_too_deeply() if isinstance(error, RecursionError) else unparsable() from error
    statements = tree.get("statements", ())
    if tree.get("error"):
        raise _refusal(text)
    if not statements:
        raise QueryRefusedError("The query is empty.", code="query.unparsable")
    if len(statements) > 1:
        raise QueryRefusedError("Only one statement is allowed.", code="query.multiple_statements")
    node = statements[0].get("node")
    if not isinstance(node, dict):
        raise unparsable()
    return _placeless(node)


def _refusal(text: str) -> QueryRefusedError:
    """Why a text is no SELECT that can be looked at."""
    try:
        statements = _PARSER.statements(text)
        kinds = [str(statement.type) for statement in statements]
    except duckdb.Error as error:
        return unparsable(_why(str(error)))
    except ValueError:  # A kind of statement that the driver has no name for.
        kinds = []
    if len(kinds) > 1:
        return QueryRefusedError("Only one statement is allowed.", code="query.multiple_statements")
    if any("MULTI" in kind for kind in kinds):
        return pivot()
    return QueryRefusedError("Only a statement that reads is allowed.", code="query.not_readonly")


def keywords() -> frozenset[str]:
    """The words that are no names."""
    found = _PARSER.ask(
        "SELECT string_agg(keyword_name, ' ') FROM duckdb_keywords() WHERE keyword_category = 'reserved' AND $1 = ''",
        "",
    )
    return frozenset(found.lower().split())


def rendered(node: Node) -> str:
    """The text of a tree, as the engine writes it; what it parses to has still to be looked at."""
    document = json.dumps({"error": False, "statements": [{"node": node, "named_param_map": _parameters(node)}]})
    try:
        return _PARSER.ask("SELECT json_deserialize_sql($1::JSON)", document)
    except duckdb.Error as error:
        raise unparsable() from error


def _parameters(node: Node) -> list[Node]:
    names = dict.fromkeys(part["identifier"] for part in parts_of(node) if part.get("class") == "PARAMETER")
    return [{"key": name, "value": number} for number, name in enumerate(names, 1)]


def parts_of(node: Any) -> Iterator[Node]:
    """All nodes of a tree, it among them."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal."""
    try:
        return bool(one == other)
    except RecursionError:
        return False


def _placeless(node: Node) -> Node:
    for part in parts_of(node):
        for place in _PLACES:
            part.pop(place, None)
    return node


def unparsable(why: str = "") -> QueryRefusedError:
    """The refusal of a text that DuckDB's parser does not take."""
    return QueryRefusedError(f"The query cannot be parsed{f': {why}' if why else ''}.", code="query.unparsable")


def pivot() -> QueryRefusedError:
    """The refusal of PIVOT without the values that it makes columns of."""
    return QueryRefusedError(
        "PIVOT finds its columns while it runs, so that it cannot be looked at before; write sum(x) FILTER (WHERE k "
        "= 'a') AS a, … with GROUP BY.",
        code="query.pivot",
    )


def _why(error: str) -> str:
    said = error.partition("\n")[0]
    if "Max expression depth" in said:
        return f"an expression has more than {MAX_EXPRESSION_DEPTH} parts in one another"
    if "syntax error at or near" in said and len(said) < 200:
        return said.partition(": ")[2]
    return ""
