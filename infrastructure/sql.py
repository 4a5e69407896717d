"""Quoting and guarding of SQL, shared by the adapter families: the only place where names become text."""

import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from domain.errors import InvalidInputError, QueryRefusedError
from domain.pipelines.spec import SourceSpec
from domain.pipelines.table import ORDINAL, TableName, check_identifier
from infrastructure.sql_calls import check_calls, names_of

_ESCAPED_NAME = re.compile(r"""(?i)(?<![\w$])u&["']""")
_WRITES = (
    exp.Insert,
    exp.Update,
    exp.Delete,
    exp.Merge,
    exp.Create,
    exp.Drop,
    exp.Alter,
    exp.Command,
    exp.Copy,
    exp.Into,
    exp.Lock,
    exp.Set,
    exp.Pragma,
    exp.Attach,
    exp.Detach,
    exp.Transaction,
    exp.Commit,
    exp.Rollback,
    exp.TruncateTable,
    exp.Use,
    exp.Kill,
)
# A result of these depends on when or how often they run, so a resumed run would differ from an uninterrupted one.
_UNSTABLE = frozenset(
    [
        "random",
        "rand",
        "setseed",
        "uuid",
        "gen_random_uuid",
        "uuidv4",
        "uuidv7",
        "now",
        "today",
        "current_timestamp",
        "current_date",
        "current_time",
        "get_current_timestamp",
        "get_current_time",
        "transaction_timestamp",
        "localtime",
        "localtimestamp",
        "current_localtime",
        "current_localtimestamp",
        "nextval",
        "currval",
        "setval",
        "txid_current",
        "current_transaction_id",
        "current_connection_id",
        "current_query",
        "current_query_id",
        "current_database",
        "current_schema",
        "current_schemas",
        "current_setting",
        "in_search_path",
        "getenv",
        "getvariable",
        "error",
        "sleep_ms",
        "stats",
        "vector_type",
        "write_log",
    ]
)


# What a query may call to run inside a writing statement: it changes nothing, whoever calls it with what.
INSIDE = frozenset(
    [
        "abs",
        "and",
        "avg",
        "between",
        "case",
        "cast",
        "ceil",
        "ceiling",
        "coalesce",
        "concat",
        "concat_ws",
        "count",
        "date_trunc",
        "extract",
        "floor",
        "greatest",
        "if",
        "initcap",
        "is_null",
        "least",
        "left",
        "length",
        "lower",
        "lpad",
        "ltrim",
        "max",
        "min",
        "mod",
        "not",
        "nullif",
        "or",
        "position",
        "replace",
        "right",
        "round",
        "row_number",
        "rpad",
        "rtrim",
        "sign",
        "split_part",
        "sqrt",
        "substr",
        "substring",
        "sum",
        "timestamp_trunc",
        "to_char",
        "trim",
        "trunc",
        "upper",
    ]
)


def quote(name: str) -> str:
    """Quote an identifier for Postgres and DuckDB.

    Raises:
        InvalidInputError: what `check_identifier` refuses (`identifier.invalid`).
    """
    try:
        check_identifier(name)
    except ValueError as error:
        raise InvalidInputError(
            f"The name {name[:100]!r} cannot be one of a column or table: {error}.", code="identifier.invalid"
        ) from error
    return f'"{name}"'


def quote_table(table: TableName) -> str:
    """Quote a table with its schema, if it has one."""
    return f"{quote(table.schema)}.{quote(table.table)}" if table.schema else quote(table.table)


def parse_query(sql: str, dialect: str) -> exp.Query:
    """Parse one read-only statement.

    Raises:
        QueryRefusedError: unparsable, several statements, not read-only, or it names a table of Headrace's own.
    """
    if "\x00" in sql:
        raise QueryRefusedError("The query holds a NUL character.", code="query.unparsable")
    if _ESCAPED_NAME.search(sql):
        raise QueryRefusedError(
            "The query holds a U&\"…\" or U&'…' escape; write the characters.", code="query.unparsable"
        )
    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
        statements = [statement for statement in sqlglot.parse(sql, dialect=dialect) if statement is not None]
    except (SqlglotError, RecursionError) as error:
        raise QueryRefusedError("The query cannot be parsed.", code="query.unparsable") from error
    if any("/*" in comment for token in tokens for comment in token.comments):
        # Databases disagree about where a comment within a comment ends, so what is a comment here may be a call there.
        raise QueryRefusedError("A comment of the query holds another one.", code="query.unparsable")
    if not statements:
        raise QueryRefusedError("The query is empty.", code="query.unparsable")
    if len(statements) > 1:
        raise QueryRefusedError("Only one statement is allowed.", code="query.multiple_statements")
    statement = statements[0]
    if not isinstance(statement, exp.Query) or statement.find(*_WRITES) is not None:
        raise QueryRefusedError("Only a statement that reads is allowed.", code="query.not_readonly")
    check_calls(statement, dialect)
    return statement


def relations_of(sql: str, dialect: str) -> frozenset[str]:
    """Name the tables a query reads, without its own CTEs.

    Raises:
        QueryRefusedError: as `parse_query`.
    """
    tree = parse_query(sql, dialect)
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = [table for table in tree.find_all(exp.Table) if table.name]
    return frozenset(
        f"{table.db}.{table.name}" if table.db else table.name for table in tables if table.db or table.name not in own
    )


def relations_if_known(source: SourceSpec, dialect: str) -> frozenset[str] | None:
    """Name the tables of a source that calls nothing but functions of `INSIDE`; None for any other source."""
    if source.table is not None:
        return frozenset({quote_table(source.table)})
    if source.query is None:
        return None
    tree = parse_query(source.query, dialect)
    for function in tree.find_all(exp.Func):
        if not names_of(function) & INSIDE or isinstance(function.parent, exp.Dot):
            return None
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = [table for table in tree.find_all(exp.Table) if table.name]
    return frozenset(
        quote_table(TableName(table.name, table.db or None)) for table in tables if table.db or table.name not in own
    )


def bind_names(sql: str, dialect: str, parameters: Mapping[str, object], render: Mapping[str, str]) -> str:
    """Replace `:name` placeholders by the text that `render` gives for each name.

    Raises:
        QueryRefusedError: a placeholder without a parameter (`query.parameter_missing`).
    """
    tree = parse_query(sql, dialect)

    def put(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Placeholder) and node.name:
            if node.name not in parameters:
                raise QueryRefusedError(
                    f"The query uses :{node.name}, which is not among the parameters.", code="query.parameter_missing"
                )
            return sqlglot.parse_one(render[node.name], dialect=dialect)
        return node

    if not any(isinstance(node, exp.Placeholder) and node.name for node in tree.find_all(exp.Placeholder)):
        return sql
    return tree.transform(put).sql(dialect=dialect)


def row_wise(sql: str) -> str:
    """Check that a transform is one row-wise SELECT over `batch`, and make it carry the rows' ordinals.

    Raises:
        InvalidInputError: `transform.not_row_wise`, `transform.not_deterministic`, or what `parse_query` refuses.
    """
    tree = parse_query(sql, "duckdb")
    if not isinstance(tree, exp.Select):
        raise _not_row_wise("set operations")
    if not tree.expressions:
        raise _not_row_wise("FROM without SELECT")
    forbidden: tuple[tuple[type[exp.Expr], str], ...] = (
        (exp.AggFunc, "aggregates"),
        (exp.Window, "window functions"),
        (exp.Subquery, "subqueries"),
        (exp.Join, "joins"),
        (exp.Unnest, "unnest"),
        (exp.Explode, "unnest"),
        (exp.Lateral, "lateral joins"),
        (exp.TableSample, "sampling"),
        (exp.Columns, "COLUMNS(…)"),
        (exp.Exists, "subqueries"),
    )
    for part in ("group", "having", "qualify", "distinct", "limit", "offset", "order", "sample", "with_", "with"):
        if tree.args.get(part):
            raise _not_row_wise({"with_": "with", "order": "order by", "group": "group by"}.get(part, part))
    for kind, words in forbidden:
        if tree.find(kind) is not None:
            raise _not_row_wise(words)
    if len(list(tree.find_all(exp.Select))) > 1:
        raise _not_row_wise("subqueries")
    tables = [table.sql(dialect="duckdb") for table in tree.find_all(exp.Table)]
    if tables != ["batch"]:
        raise _not_row_wise("any relation other than batch")
    _refuse_unstable(tree)
    if any(column.name.lower() == ORDINAL for column in tree.find_all(exp.Column, exp.Identifier)):
        raise InvalidInputError(f"{ORDINAL} is a name of Headrace's own.", code="transform.reserved_name")
    stars = [
        item
        for item in tree.expressions
        if item.is_star or (item.find(exp.Star) is not None and not item.find(exp.Func))
    ]
    if len(stars) > 1:
        raise _not_row_wise("more than one *")
    if not stars:
        tree = tree.select(exp.column(ORDINAL, quoted=True))
    return tree.sql(dialect="duckdb")


def _refuse_unstable(tree: exp.Expr) -> None:
    for function in tree.find_all(exp.Func):
        names = names_of(function)
        is_age_of_now = "age" in names and len(function.args.get("expressions") or ()) == 1
        if is_age_of_now or names & _UNSTABLE:
            raise InvalidInputError(
                f"{min(names)} gives another result when a run is resumed; "
                "use it in the source query, or the metadata columns.",
                code="transform.not_deterministic",
            )


def _not_row_wise(words: str) -> InvalidInputError:
    return InvalidInputError(
        f"A transform works row by row, so {words} cannot be used: the result would depend on where batches end. "
        "Put it into the source query.",
        code="transform.not_row_wise",
    )


def check_row_predicate(expression: str) -> None:
    """Check that the text of an `sql` rule is one row-wise expression.

    Raises:
        InvalidInputError: as `row_wise`.
    """
    if not expression.strip():
        raise QueryRefusedError("The expression is empty.", code="query.unparsable")
    row_wise(f"SELECT (\n{expression}\n) AS verdict FROM batch")


def columns_of_predicate(expression: str) -> set[str]:
    """Name the columns that an `sql` rule mentions."""
    tree = parse_query(f"SELECT (\n{expression}\n) AS verdict FROM batch", "duckdb")
    return {column.name for column in tree.find_all(exp.Column)}
