"""Whether every node of a statement is of a kind, and every name one, that a query may be made of; the unknown is
refused.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from domain.errors import QueryRefusedError
from domain.stores.table import INTERNAL_PREFIX, RESERVED, is_reserved_schema
from infrastructure.queries.postgres_names import FUNCTIONS, KINDS, KNOWN_TO_REACH, PLAIN, TYPES
from infrastructure.queries.postgres_parsing import nodes, refused, strings

_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
_SECRET_RELATIONS = frozenset(
    [
        *(
            "pg_authid",
            "pg_shadow",
            "pg_user_mapping",
            "pg_user_mappings",
            "pg_hba_file_rules",
            "pg_ident_file_mappings",
        ),
        *("pg_file_settings", "pg_largeobject", "pg_subscription"),
    ]
)
# What asks for the path by which names are found, which is not the user's own while a query runs.
_SESSION_VALUES = frozenset({"SVFOP_CURRENT_SCHEMA"})


@dataclass
class Names:
    """What the statement names beside its relations: `unlisted` functions and `types`, of which only a server can tell
    more, and the names of relations that are values (`literals`, by the node of their type).
    """

    functions: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)
    types: set[tuple[str, ...]] = field(default_factory=set)
    schemas: set[str] = field(default_factory=set)
    literals: list[tuple[Any, Any]] = field(default_factory=list)
    is_plain: bool = True


def judge(tree: Any) -> Names:
    """Check every node of one statement.

    Raises:
        QueryRefusedError: `query.not_readonly`, `query.forbidden_function`, `query.forbidden_relation`,
        `query.forbidden_type`.
    """
    if tree.stmts[0].stmt.WhichOneof("node") != "select_stmt":
        raise refused("Only a statement that reads is allowed.", "query.not_readonly")
    names = Names()
    for node in nodes(tree.stmts[0]):
        kind = node.DESCRIPTOR.name
        if kind == "Node":
            continue
        if kind in ("IntoClause", "LockingClause") or (kind.endswith("Stmt") and kind not in KINDS):
            raise refused("Only a statement that reads is allowed.", "query.not_readonly")
        if kind not in KINDS:
            raise refused("The query holds an expression that is not known to only read.", "query.forbidden_function")
        names.is_plain = names.is_plain and kind in PLAIN
        if check := _CHECKS.get(kind):
            check(node, names)
    return names


def _select(node: Any, names: Names) -> None:
    names.is_plain = names.is_plain and not (
        node.values_lists or node.sort_clause or node.group_clause or node.distinct_clause or node.HasField("larg")
    )


def _function(node: Any, names: Names) -> None:
    *schema, name = strings(node.funcname)
    names.functions.add(name)
    if not schema or schema == ["pg_catalog"]:
        if name in FUNCTIONS:
            return
        if schema or KNOWN_TO_REACH.fullmatch(name) or not _NAME.fullmatch(name):
            raise forbidden(name)
        names.unlisted.add(name)
        return
    _schema(schema, names, lambda: forbidden(name))


def _operator(items: Iterable[Any], names: Names) -> None:
    *schema, name = strings(items)
    if schema and schema != ["pg_catalog"]:
        _schema(schema, names, lambda: refused(f"The operator {name} cannot be used.", "query.forbidden_function"))


def _schema(schema: list[str], names: Names, refusal: Callable[[], QueryRefusedError]) -> None:
    if len(schema) != 1 or is_reserved_schema(schema[0]):
        raise refusal()
    names.schemas.add(schema[0])


def _cast(node: Any, names: Names) -> None:
    if strings(node.type_name.names)[-1:] == ["regclass"] and not node.type_name.array_bounds:
        value = node.arg.a_const
        if node.arg.WhichOneof("node") == "a_const" and value.WhichOneof("val") == "sval":
            names.literals.append((node.type_name, value.sval))


def _type(node: Any, names: Names) -> None:
    if any(node is kind for kind, _ in names.literals):
        return
    if node.setof or node.pct_type:
        raise refused("The query names a type by a column or as a set.", "query.forbidden_type")
    *schema, name = strings(node.names)
    if schema in ([], ["pg_catalog"]) and name in TYPES:
        return
    if name.startswith(("reg", "_reg")) and schema in ([], ["pg_catalog"]):
        raise refused(
            f"The type {name[:63]} looks up what a value names, and shows it as the session would; only the name of a "
            "table that is written into the query may be of it, as in 'orders'::regclass.",
            "query.untrusted_type",
        )
    if schema == ["pg_catalog"] or name.startswith(("pg_", "_pg_")):
        raise untrusted_type(name)
    if schema and (len(schema) != 1 or is_reserved_schema(schema[0])):
        raise untrusted_type(name)
    names.types.add((*schema, name))


def _relation(node: Any, _: Names) -> None:
    lowered = node.relname.lower()
    if lowered.startswith(INTERNAL_PREFIX):
        raise refused("Tables named _headrace* cannot be read.", "query.forbidden_relation")
    if lowered in _SECRET_RELATIONS:
        raise refused(f"The relation {lowered} cannot be read.", "query.forbidden_relation")
    if is_reserved_schema(node.schemaname) or node.catalogname:
        raise refused(f"The query names a relation that may not be read: {RESERVED}.", "query.forbidden_relation")


def _sampled(node: Any, _: Names) -> None:
    if strings(node.method) not in (["system"], ["bernoulli"]):
        raise forbidden(strings(node.method)[-1])


def _session_value(node: Any, _: Names) -> None:
    if node.DESCRIPTOR.fields_by_name["op"].enum_type.values_by_number[node.op].name in _SESSION_VALUES:
        raise forbidden("current_schema")


_CHECKS: dict[str, Callable[[Any, Names], None]] = {
    "SelectStmt": _select,
    "FuncCall": _function,
    "A_Expr": lambda node, names: _operator(node.name, names),
    "SubLink": lambda node, names: _operator(node.oper_name, names) if node.oper_name else None,
    "SortBy": lambda node, names: _operator(node.use_op, names) if node.use_op else None,
    "TypeCast": _cast,
    "TypeName": _type,
    "RangeVar": _relation,
    "RangeTableSample": _sampled,
    "SQLValueFunction": _session_value,
}


def forbidden(name: str) -> QueryRefusedError:
    """The refusal of a function that is not one of the built-ins that may be called."""
    shown = name if _NAME.fullmatch(name) else "with this name"
    return refused(
        f"The function {shown} cannot be used in a query of a pipeline: it may reach beyond the tables that the query "
        "reads, or is not known to only tell something. Those of an extension can, when the connection names its "
        "schema among its trusted_schemas.",
        "query.forbidden_function",
    )


def untrusted_type(name: str) -> QueryRefusedError:
    """The refusal of a type whose operators and functions are not Postgres' own."""
    return refused(
        f"The query uses the type {name[:63]!r}, which is not one of those built into Postgres that values may have: "
        "its functions and operators are somebody's own. Name its schema among the trusted_schemas of the "
        "connection, or only select its columns, or cast them to text.",
        "query.untrusted_type",
    )
