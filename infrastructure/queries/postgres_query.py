"""What a query on Postgres is: judged by its own parser, resolved by what its catalog says, and run as it
was parsed.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domain.stores.table import INTERNAL_PREFIX, RESERVED, is_reserved_schema
from infrastructure.bench.in_process import Calls, InProcessBench
from infrastructure.queries.postgres_judging import Names, forbidden, judge, untrusted_type
from infrastructure.queries.postgres_known import Known, Named
from infrastructure.queries.postgres_origins import Origin, Table, origin_of
from infrastructure.queries.postgres_parsing import nodes, numbered, parsed, put_parameters, refused, strings, written
from infrastructure.queries.postgres_scopes import Scopes

_REMEMBERED = 64


@dataclass(frozen=True)
class PostgresQuery:
    """What a query names, so that a catalog can be asked about it.

    `unlisted` are functions that are no built-ins that may be called, `selected` the names of what is selected from a
    value, `sources` the functions that rows come from. A plain one calls nothing at all.
    """

    relations: tuple[Named, ...]
    functions: frozenset[str]
    unlisted: frozenset[str]
    types: frozenset[tuple[str, ...]]
    literals: frozenset[str]
    selected: frozenset[str]
    sources: frozenset[str]
    parameters: tuple[str, ...]
    is_plain: bool


def analyzed(text: str, trusted: tuple[str, ...] | None = None) -> PostgresQuery:
    """Judge a query by itself; `trusted` are the schemas whose functions may be called, None where that is not known.

    Raises:
        QueryRefusedError: `query.…`.
    """
    with_numbers, parameters = numbered(text)
    tree = parsed(with_numbers)
    names = judge(tree)
    _check_trusted(names, trusted)
    scopes = Scopes(None)
    scopes.whole(tree)
    return PostgresQuery(
        relations=tuple(dict.fromkeys(named for _, named in scopes.relations)),
        functions=frozenset(names.functions),
        unlisted=frozenset(names.unlisted),
        types=frozenset(names.types),
        literals=frozenset(value.sval for _, value in names.literals),
        selected=frozenset(scopes.selected),
        sources=frozenset(scopes.sources),
        parameters=parameters,
        is_plain=names.is_plain and not parameters and not names.literals and not names.types,
    )


def _check_trusted(names: Names, trusted: tuple[str, ...] | None) -> None:
    """Refuse what no schema that is trusted could have."""
    if trusted is None:
        return
    for schema in names.schemas - set(trusted):
        raise refused(
            f"The query calls a function or operator of the schema {schema}, which is not among the trusted_schemas "
            "of the connection.",
            "query.forbidden_function",
        )
    if names.unlisted and not trusted:
        raise forbidden(min(names.unlisted))


def resolved(text: str, known: Known, render: Mapping[str, str]) -> str:
    """The text that is run: its relations with their schemas, its parameters as `render` says, and nothing but what was
    parsed.

    Raises:
        QueryRefusedError: `query.…`.
    """
    with_numbers, parameters = numbered(text)
    tree = parsed(with_numbers)
    names = judge(tree)
    _check_trusted(names, tuple(known.trusted))
    for function in names.unlisted - known.functions:
        raise forbidden(function)
    for kind in names.types:
        if is_reserved_schema(known.types.get(kind, "pg_")):
            raise untrusted_type(kind[-1])
    if known.casts and not (names.is_plain and all(node.DESCRIPTOR.name != "TypeCast" for node in nodes(tree))):
        raise refused(
            f"The database has a cast {known.casts[0]} by a function that is somebody's own, which any query but one "
            "of plain columns might call unseen: drop it, or name the function's schema among the trusted_schemas of "
            "the connection.",
            "query.untrusted_type",
        )
    scopes = Scopes(known)
    scopes.whole(tree)
    for node, named in scopes.relations:
        relation = known.relations.get(named)
        if relation is not None and is_reserved_schema(relation.schema):
            raise refused(f"The query names a relation that may not be read: {RESERVED}.", "query.forbidden_relation")
        if relation is not None:
            node.schemaname = relation.schema
    for node in nodes(tree):
        if node.DESCRIPTOR.name == "Float":
            node.fval = node.fval.replace("_", "")  # Before its version 16 a server took 1_000 for 1 AS _000.
    _qualify_types(tree, known)
    _qualify_literals(names, known)
    put_parameters(tree, parameters, render)
    return written(tree)


def _qualify_types(tree: Any, known: Known) -> None:
    for node in nodes(tree):
        if node.DESCRIPTOR.name != "TypeName":
            continue
        found = tuple(strings(node.names))
        if len(found) == 1 and found in known.types:
            node.names.add().string.sval = found[0]
            node.names[0].string.sval = known.types[found]


def _qualify_literals(names: Names, known: Known) -> None:
    for _, value in names.literals:
        schema, name = known.literals.get(value.sval, ("", ""))
        if is_reserved_schema(schema) or name.lower().startswith(INTERNAL_PREFIX):
            raise refused(f"The query names a relation that may not be read: {RESERVED}.", "query.forbidden_relation")
        if schema:
            value.sval = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name))


class PostgresQueries:
    """Judges and resolves queries on a bench; remembers what it made of the last ones."""

    def __init__(self, bench: Calls | None = None) -> None:
        self._bench = bench or InProcessBench()
        self._analyzed: OrderedDict[tuple[str, tuple[str, ...] | None], PostgresQuery] = OrderedDict()

    def analyzed(self, text: str, trusted: Sequence[str] | None = None) -> PostgresQuery:
        """As the function of that name."""
        key = (text, None if trusted is None else tuple(trusted))
        found = self._analyzed.get(key)
        if found is None:
            found = self._analyzed[key] = self._bench.call(analyzed, *key)
            while len(self._analyzed) > _REMEMBERED:
                self._analyzed.popitem(last=False)
        return found

    def resolved(self, text: str, known: Known, render: Mapping[str, str]) -> str:
        """As the function of that name."""
        return self._bench.call(resolved, text, known, dict(render))

    def origin(self, text: str, column: str, tables: Sequence[Table]) -> Origin:
        """As `origin_of`, of what was resolved before."""
        return self._bench.call(origin_of, text, column, tuple(tables))
