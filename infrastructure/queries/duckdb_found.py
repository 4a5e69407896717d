"""What is found in a tree, and the sentences by which it is refused."""

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from domain.errors import QueryRefusedError
from domain.stores.table import INTERNAL_PREFIX, RESERVED, is_reserved_schema
from infrastructure.queries.duckdb_names import ALLOWED, IMPLIED
from infrastructure.queries.duckdb_parsing import fold

_RELATION = "query.forbidden_relation"
_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
# DuckDB reads a file or URL where a relation's name looks like one.
_FILE = re.compile(r""".*([/\\:*?\[\]{}].*|\.[a-z0-9]{1,8})""", re.DOTALL)
_SECRETS = frozenset(
    {
        *("duckdb_secrets", "duckdb_logs", "duckdb_settings", "duckdb_variables", "pg_authid", "pg_shadow"),
        *("pg_user_mapping", "pg_user_mappings", "pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings"),
        *("pg_largeobject", "pg_subscription"),
    }
)
_INSTANCES = frozenset({"system", "temp"})


@dataclass
class Found:
    """What a walk through a tree has met."""

    functions: set[str] = field(default_factory=set)
    columns: set[tuple[str, ...]] = field(default_factory=set)
    relations: list[tuple[str, ...]] = field(default_factory=list)
    """Each with its catalog and schema, if they are written; common tables are not among them."""
    parameters: set[str] = field(default_factory=set)
    features: list[str] = field(default_factory=list)
    """In words, what a step may not have."""
    types: set[str] = field(default_factory=set)
    """Those that are not DuckDB's own."""
    unstable: set[str] = field(default_factory=set)
    slowness: float = 0.0
    """What part of what a text may take each byte of the longest is, in a function that takes far longer
    than its size.
    """
    is_plain: bool = True
    """Nothing but columns, literals, comparisons and casts."""

    def feature(self, words: str) -> None:
        """Remember a part that looks at more than a row."""
        self.is_plain = False
        if words not in self.features:
            self.features.append(words)

    def call(self, name: str) -> None:
        """Remember a function.

        Raises:
            QueryRefusedError: it is on no list (`query.forbidden_function`).
        """
        self.is_plain = False
        if name not in ALLOWED and name not in IMPLIED:
            raise forbidden_function(name)
        self.functions.add(name)

    def relation(self, path: tuple[str, ...]) -> None:
        """Remember a relation that is no common table.

        Raises:
            QueryRefusedError: it is ours, of the catalog, or looks like a file (`query.forbidden_relation`).
        """
        table, around = fold(path[-1]), [fold(part) for part in path[:-1]]
        check_relation_name(table)
        if any(_FILE.fullmatch(part) for part in around):
            raise _no_file()
        if any(is_reserved_schema(part) for part in around) or (len(path) > 1 and around[0] in _INSTANCES):
            raise QueryRefusedError(f"The query names a relation that may not be read: {RESERVED}.", code=_RELATION)
        if path not in self.relations:
            self.relations.append(path)


def check_relation_name(table: str) -> None:
    """Refuse a name, in lower case, that no relation of a query has, a common table among them.

    Raises:
        QueryRefusedError: `query.forbidden_relation`.
    """
    if table.startswith(INTERNAL_PREFIX):
        raise QueryRefusedError("Tables named _headrace* cannot be read.", code=_RELATION)
    if table in _SECRETS:
        raise QueryRefusedError(f"The relation {table} cannot be read.", code=_RELATION)
    if _FILE.fullmatch(table):
        raise _no_file()


def _no_file() -> QueryRefusedError:
    return QueryRefusedError(
        "A query reads tables, not files or addresses; a connection of kind files reads files.", code=_RELATION
    )


def forbidden_function(name: str) -> QueryRefusedError:
    """The refusal of a function that is on no list."""
    shown = name if _NAME.fullmatch(name) else "with this name"
    return QueryRefusedError(
        f"The function {shown} cannot be used in a query of a pipeline: it may reach beyond the tables that the query "
        "reads, or is not known to only tell something.",
        code="query.forbidden_function",
    )


def unknown(kind: str) -> NoReturn:
    """Refuse a part that is not known: a new version of DuckDB may have brought it.

    Raises:
        QueryRefusedError: `query.forbidden_construct`.
    """
    shown = re.sub(r"[^A-Za-z0-9_ ]", "", kind)[:60].lower().replace("_", " ")
    raise QueryRefusedError(
        f"The query holds something that is not known to only read: {shown}.", code="query.forbidden_construct"
    )


class MakesTooMuchError(QueryRefusedError):
    """Something of a query makes too much from nothing, or may grow without a bound (`query.too_large`)."""

    code = "query.too_large"


def only(node: dict[str, Any], *names: str) -> None:
    """Refuse a node with a part beside these.

    Raises:
        QueryRefusedError: `query.forbidden_construct`.
    """
    for name in node:
        if name not in names and name not in ("class", "type", "alias"):
            unknown(f"{name} of {node.get('type', 'a part')}")
