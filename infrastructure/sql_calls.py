"""Which functions and relations a user's query may not name, whatever rights its role has; unknown shapes are refused."""

import re

from sqlglot import exp

from domain.errors import QueryRefusedError
from domain.pipelines.table import INTERNAL_PREFIX, RESERVED, is_reserved_schema

_RELATION = "query.forbidden_relation"
_NAME = re.compile(r"[a-z_][a-z0-9_$]*")

# They run text that they are given, reach files, other servers or other sessions, or leave something behind.
_FORBIDDEN = re.compile(
    r"""
    lo_.* | loread | lowrite | dblink.* | http | http_.* | crosstab.* | connectby | xpath_table
    | (query|table|schema|database|cursor)_to_xml.* | ts_stat | ts_rewrite
    | set_config | nextval | setval | currtid2 | amvalidate
    | binary_upgrade_.* | brin_.* | gin_clean_pending_list | ri_fkey_.* | plpgsql_.* | postgres_fdw_.*
    | read_.* | sniff_.* | glob | parquet_.* | query | query_table | json_execute_serialized_sql
    | (arrow|pandas|python|seq|sqlite|postgres|mysql|iceberg|delta)_(scan|query|execute|map|arrow).*
    | getenv | which_secret | duckdb_secrets | duckdb_logs.* | duckdb_external_.* | write_log
    | pragma_.* | (enable|disable)_.* | (force_)?checkpoint | truncate_duckdb_logs | .*_external_resource.*
    """,
    re.VERBOSE,
)
# Of Postgres' own names that begin with pg_, those that only tell something; the rest is refused.
_ASKING = re.compile(
    r"""
    pg_( typeof | column_size | column_compression | collation_for | basetype
    | size_pretty | size_bytes | (total_)?relation_size | table_size | indexes_size | database_size | tablespace_size
    | sleep | sleep_for | sleep_until | backend_pid | client_encoding | char_to_encoding | encoding_to_char
    | get_(constraint|index|trigger|view|function|partkey|statisticsobj|rule)def | get_expr | get_userbyid
    | get_serial_sequence | get_function_(arguments|identity_arguments|result) | get_partition_constraintdef
    | has_role | .*_is_visible | is_in_recovery | my_temp_schema | is_other_temp_schema | postmaster_start_time
    | conf_load_time | partition_(root|tree|ancestors) | timezone_(names|abbrevs.*) | input_is_valid | input_error_info
    | current_snapshot | snapshot_(xmin|xmax|xip) | visible_in_snapshot | current_xact_id(_if_assigned)? | xact_status
    | xact_commit_timestamp | wal_lsn_diff | lsn | trigger_depth )
    """,
    re.VERBOSE,
)
_SECRET_RELATIONS = frozenset(
    [
        "pg_authid",
        "pg_shadow",
        "pg_user_mapping",
        "pg_user_mappings",
        "pg_hba_file_rules",
        "pg_ident_file_mappings",
        "pg_file_settings",
        "pg_largeobject",
        "pg_subscription",
        "duckdb_secrets",
        "duckdb_logs",
    ]
)
# DuckDB reads a file or URL where a relation's name looks like one.
_PATH = re.compile(r"""[/\\:*?\[\]{}]""")
_FILE = re.compile(r".*\.[a-z0-9]{1,8}")
_TABLE_FUNCTIONS = frozenset(
    ["generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest", "histogram"]
)


def check_calls(tree: exp.Expr, dialect: str) -> None:
    """Check every function and relation of a query.

    Raises:
        QueryRefusedError: `query.forbidden_function`, `query.forbidden_relation`.
    """
    for function in tree.find_all(exp.Func):
        for name in names_of(function):
            _check_function(name)
        if dialect == "duckdb" and _is_relation(function) and not names_of(function) & _TABLE_FUNCTIONS:
            raise _forbidden(min(names_of(function)))
    for table in tree.find_all(exp.Table):
        _check_relation(table.name, dialect)
        if any(is_reserved_schema(part) for part in (table.db, table.catalog)):
            raise QueryRefusedError(f"The query names a relation that may not be read: {RESERVED}.", code=_RELATION)


def names_of(function: exp.Func) -> set[str]:
    """The names that a function may have been called by, in lower case."""
    if isinstance(function, exp.Anonymous):
        return {function.name.lower()}
    return {name.lower() for name in function.sql_names()}


def _is_relation(function: exp.Func) -> bool:
    return isinstance(function.parent, exp.Table | exp.Lateral) and not isinstance(function, exp.Explode)


def _check_function(name: str) -> None:
    is_postgres = name.startswith("pg_") and not _ASKING.fullmatch(name)
    if is_postgres or _FORBIDDEN.fullmatch(name) or not _NAME.fullmatch(name):
        raise _forbidden(name)


def _check_relation(name: str, dialect: str) -> None:
    lowered = name.lower()
    if lowered.startswith(INTERNAL_PREFIX):
        raise QueryRefusedError("Tables named _headrace* cannot be read.", code="query.forbidden_relation")
    if lowered in _SECRET_RELATIONS:
        raise QueryRefusedError(f"The relation {lowered} cannot be read.", code="query.forbidden_relation")
    if _PATH.search(lowered) or (dialect == "duckdb" and _FILE.fullmatch(lowered)):
        raise QueryRefusedError(
            "A query reads tables, not files or addresses; a connection of kind files reads files.",
            code="query.forbidden_relation",
        )


def _forbidden(name: str) -> QueryRefusedError:
    shown = name if _NAME.fullmatch(name) else "with this name"
    return QueryRefusedError(
        f"The function {shown} cannot be used in a query of a pipeline: it may reach beyond the tables that the query "
        "reads, or is not known to only tell something.",
        code="query.forbidden_function",
    )
