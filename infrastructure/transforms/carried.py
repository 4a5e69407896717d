"""Which outputs of an SQL step are a column of the batch as it came, and so keep its type, which DuckDB may not know."""

from collections.abc import Sequence

from sqlglot import exp

from domain.pipelines.table import Column
from infrastructure.sql import parse_query


def carried(sql: str, columns: Sequence[Column]) -> dict[str, Column]:
    """The column of the batch that each output repeats, by the output's name in lower case.

    What an expression makes is not among them, whatever its name; the step is row-wise and has been checked.
    """
    known = {column.name.lower(): column for column in columns}
    outputs: dict[str, Column] = {}
    tree = parse_query(sql, "duckdb")
    tables = {"", *(table.alias_or_name.lower() for table in tree.find_all(exp.Table))}
    for item in tree.expressions:
        star = item if isinstance(item, exp.Star) else item.this if isinstance(item, exp.Column) else None
        if isinstance(star, exp.Star):
            outputs |= _of_star(star, known)
        elif (name := _repeated(item, tables)) in known:
            outputs[(item.alias or name).lower()] = known[name]
    return outputs


def _repeated(item: exp.Expr, tables: set[str]) -> str:
    """The column that an output repeats, in lower case; nothing for anything else, such as a field of a struct."""
    column = item.unalias().unnest()
    is_plain = isinstance(column, exp.Column) and column.table.lower() in tables and not column.db
    return column.name.lower() if is_plain else ""


def _of_star(star: exp.Star, known: dict[str, Column]) -> dict[str, Column]:
    """All columns but those that are left out or replaced; a renamed one is under its new name."""
    gone = [part for name in ("except_", "except", "replace") for part in star.args.get(name) or ()]
    names = {part.alias_or_name.lower() for part in gone}
    outputs = {name: column for name, column in known.items() if name not in names}
    for renamed in star.args.get("rename") or ():
        if column := outputs.pop(renamed.this.name.lower(), None):
            outputs[renamed.alias.lower()] = column
    return outputs
