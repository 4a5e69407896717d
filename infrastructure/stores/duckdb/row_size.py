"""How large the values of a DuckDB file are, as its own statistics say, which are asked before any of them is read.

DuckDB has a value whole before anybody can look at it, and Arrow has it again. `memory_limit` bounds the first of
these, for all who read at a time. So a statement that may meet a value larger than a batch measures it before Arrow
gets it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from domain.errors import PlatformError, WorkFailedError
from domain.stores.table import Column, TableName
from infrastructure.sql import quote, quote_table
from infrastructure.tabular.arrow import row_too_large
from infrastructure.tabular.nested_types import entries_of, fields_of, item_of

VECTOR_ROWS = 2048
"""So many rows DuckDB has unpacked at a time."""
_COPIES = 2
"""DuckDB's own, and Arrow's."""
_LISTED_BYTES = 128 * 1024 * 1024
"""What lists of numbers are taken for: statistics do not tell how many are in one."""
_SMALL = 1024 * 1024
"""What is left to Arrow's own sizes, however small a batch is: a statement that fails gives no row of those before,
either.
"""
_LOOSE = 4
"""How much longer the text of a list, struct or map may be than what it holds."""
_TOLD = frozenset(
    {"has_null", "has_no_null", "approx_unique", "min", "max", "has_unicode",
     "min_string_length", "max_string_length", "total_string_length"}
)  # fmt: skip
"""What the statistics of a value are that has one size, or whose length they tell."""
_ITEM_BYTES = re.compile(r"(?:u?int|float)(8|16|32|64)|(?:timestamp|time)(?:tz)?")
_SAID = re.compile(r"headrace: a row is too large in column ([0-9]+)")
_PART = re.compile(r'"((?:[^"]|"")*)"|[^."]+')
_TABLES = """
SELECT schema_name, table_name, any_value(estimated_size), list(column_name) FROM duckdb_tables() JOIN duckdb_columns()
USING (database_name, schema_name, table_name)
WHERE database_name = current_database() AND list_contains($1, table_name) GROUP BY ALL"""
_IS_TABLE = """
SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND lower(schema_name) = lower($1)
AND lower(table_name) = lower($2)"""
_TEXTS = """
SELECT schema_name, table_name, any_value(estimated_size), list(column_name) FROM duckdb_tables() JOIN duckdb_columns()
USING (database_name, schema_name, table_name)
WHERE database_name = current_database() AND estimated_size > 0
AND regexp_matches(data_type, 'VARCHAR|BLOB|BIT|JSON|BIGNUM') GROUP BY ALL"""
# Rows that were deleted, and values before an UPDATE, are in the statistics until a checkpoint.
_EXACT = """
SELECT max(rows), bool_or(is_updated) FROM (
  SELECT column_path, sum("count") AS rows, bool_or(has_updates) AS is_updated FROM pragma_storage_info($1)
  WHERE segment_type = 'VALIDITY' AND len(string_split(column_path, ',')) = 2 OR has_updates GROUP BY 1)"""


@dataclass(frozen=True)
class Sizes:
    """What a statement reads: the longest text, its column where that is known, and what it may have in memory at a
    time; `row_bytes` is what texts and lists of one row may have.
    """

    longest: int = 0
    column: str | None = None
    most_bytes: int = 0
    has_lists: bool = False
    is_known: bool = True
    row_bytes: int = 0

    def with_column(self, column: str | None, texts: tuple[int, int] | None, rows: int) -> "Sizes":
        """Count one more, by its longest text and all of them, which are None of lists; without a name nothing is known
        of it.
        """
        length, total = texts or (0, 0)
        part = _LISTED_BYTES if texts is None else max(length, min(total, total * VECTOR_ROWS // max(rows, 1)))
        is_longer = length > self.longest
        return Sizes(
            max(length, self.longest),
            column if is_longer else self.column,
            self.most_bytes + _COPIES * part,
            self.has_lists or texts is None,
            self.is_known and column is not None,
            self.row_bytes + (part if texts is None else length),
        )


def sizes_of(
    cursor: duckdb.DuckDBPyConnection, text: str, parameters: Mapping[str, Any], *, has_filters: bool = False
) -> Sizes:
    """What reading a FROM item may meet, by the statistics of the tables that its plan reads, and by what it filters if
    wanted.
    """
    [(_, plan)] = cursor.execute(f"EXPLAIN (FORMAT JSON) SELECT * FROM {text}", dict(parameters) or None).fetchall()
    scans = list(_scans(json.loads(plan)))
    found = cursor.execute(_TABLES, [sorted({place[-1] for place, *_ in scans})]).fetchall()
    tables: dict[tuple[str, ...], tuple[int, list[str]]] = {
        (schema, table): (int(rows or 0), names) for schema, table, rows, names in found
    }
    sizes = Sizes()
    for place, columns, filters in scans:
        rows, names = tables.get(place[-2:], (0, []))
        if has_filters:
            columns = [*columns, *(name for name in names if name in filters and name not in columns)]
        if columns and (not names or "rowid" in map(str.lower, names)):
            sizes = sizes.with_column(None, None, rows)  # No row is missing for certain: nobody can be asked.
            continue
        # A part of a struct is named by itself.
        asked = columns if set(columns) <= set(names) else names if columns else []
        for column, stats in zip(asked, _statistics(cursor, place, asked), strict=True):
            sizes = sizes.with_column(column if _is_told(stats) else None, _strings(stats), rows)
    return sizes


def _scans(plan: Any) -> Iterator[tuple[tuple[str, ...], list[str], str]]:
    """The tables that a plan reads, by the parts of their names, with the columns of them that it gives, and its
    filters.
    """
    for node in plan:
        more = node.get("extra_info", {})
        if isinstance(more.get("Table"), str):
            columns = more.get("Projections", [])
            parts = _PART.finditer(more["Table"])
            place = tuple(part[0] if part[1] is None else part[1].replace('""', '"') for part in parts)
            yield place, [columns] if isinstance(columns, str) else columns, str(more.get("Filters", ""))
        yield from _scans(node.get("children", []))


def _statistics(cursor: duckdb.DuckDBPyConnection, place: Sequence[str], columns: Sequence[str]) -> Sequence[Any]:
    """DuckDB's statistics of columns; there is no such row, so that nothing is read."""
    if not columns:
        return []
    # As text: the least and greatest values are in it, not all of which Python has.
    asked = ", ".join(f"CAST(CAST(stats(stored.{_spelt(column)}) AS JSON) AS VARCHAR)" for column in columns)
    table = ".".join(map(_spelt, place[-2:]))
    sql = f"SELECT {asked} FROM (SELECT 1) AS one LEFT JOIN {table} AS stored ON stored.rowid = -1"
    [row] = cursor.execute(sql).fetchall()
    return [json.loads(told or "null") for told in row]


def _spelt(name: str) -> str:
    """A name as it is in the file, which may be one that nothing of ours would be given."""
    return '"' + name.replace('"', '""') + '"'


def _parts(stats: Any) -> tuple[list[Any], bool]:
    """The statistics of what a value holds, and whether that is any number of items."""
    inner = stats.get("child_stats") if isinstance(stats, dict) else None
    if inner is None:
        return [], False
    fields = inner if isinstance(inner, list) else list(inner.values())  # Those of a TUPLE have no names.
    return (fields, False) if all(isinstance(field, dict) for field in fields) else ([inner], True)


def _is_told(stats: Any) -> bool:
    """Whether statistics tell the length of every text: of a VARIANT, a GEOMETRY, and what a later DuckDB has, they do
    not.
    """
    parts, _ = _parts(stats)
    return all(map(_is_told, parts)) if parts else not isinstance(stats, dict) or stats.keys() <= _TOLD


def _strings(stats: Any) -> tuple[int, int] | None:
    """The length of the longest text and of all; None where there is a list of other values, or nothing is told."""
    if not isinstance(stats, dict):
        return 0, 0
    parts, is_list = _parts(stats)
    if not parts:
        longest = int(stats.get("max_string_length") or 0)
        return (longest, int(stats.get("total_string_length") or longest)) if _is_told(stats) else None
    found = [_strings(part) for part in parts]
    known = [part for part in found if part is not None]
    if len(known) < len(found) or (is_list and not any(longest for longest, _ in known)):
        return None
    return max((longest for longest, _ in known), default=0), sum(total for _, total in known)


def most_unpacked(cursor: duckdb.DuckDBPyConnection) -> int:
    """How many bytes the texts of 2,048 rows of one table may have together, at most; lists of numbers do not tell."""
    most = 0
    for schema, table, rows, columns in cursor.execute(_TEXTS).fetchall():
        found = [_strings(stats) or (0, 0) for stats in _statistics(cursor, (schema, table), columns)]
        most = max(most, sum(min(total, longest * min(rows, VECTOR_ROWS)) for longest, total in found))
    return most


def is_met(cursor: duckdb.DuckDBPyConnection, table: TableName, limit: int) -> bool:
    """Whether reading so many rows of a table meets every value that its statistics tell of."""
    if cursor.execute(_IS_TABLE, [table.schema or "main", table.table]).fetchall() == [(0,)]:
        return False  # A view; asked for what is stored of it, DuckDB would end the transaction.
    name = quote_table(table)
    [(stored, is_updated)] = cursor.execute(_EXACT, [name]).fetchall()
    [(there,)] = cursor.execute(f"SELECT count(*) FROM {name}").fetchall()
    return bool(stored == there and there <= limit and not is_updated)


def watched_above(batch_bytes: int) -> int:
    """From how many bytes on a value is refused before it is read."""
    return max(batch_bytes, _SMALL)


def measured(columns: Sequence[Column], most: int, sizes: Sizes) -> str:
    """What to select of rows so that the statement fails at one with a value of more than so many bytes."""
    watched = []
    for place, column in enumerate(columns):
        name = quote(column.name)
        length = _length_of_list(name, column.type) if sizes.has_lists else None
        if length is None and (sizes.longest > most or not sizes.is_known):
            length = _length(name, column.type)
        if length is not None:
            failure = f"error('headrace: a row is too large in column {place}')"
            watched.append(f"CASE WHEN {length} > {most:d} THEN {failure} ELSE {name} END AS {name}")
    return f"* REPLACE ({', '.join(watched)})" if watched else "*"


def _length_of_list(name: str, kind: str) -> str | None:
    """How many bytes a list of numbers or times has at least, in SQL; what is cheap to ask of every row."""
    found = _ITEM_BYTES.fullmatch(item_of(kind) or "")
    return f"len({name}) * {int(found[1] or 64) // 8}" if found else None


def _length(name: str, kind: str) -> str | None:
    """About how many bytes a value with texts has, in SQL; None of what is always short."""
    if kind == "binary":
        return f"octet_length({name})"
    if item_of(kind) is not None or fields_of(kind) is not None or entries_of(kind) is not None:
        return f"strlen(CAST({name} AS VARCHAR)) // {_LOOSE}"
    return f"strlen({name})" if kind in ("string", "json") or kind.startswith("native:") else None


def told(error: duckdb.Error, columns: Sequence[Column], most: int | None) -> PlatformError | None:
    """Say in our words that a statement failed at a row; None if it failed with anything else."""
    said = _SAID.search(str(error))
    if said is None or most is None or int(said[1]) >= len(columns):
        return None
    return row_too_large(most, columns[int(said[1])].name)


def too_many_together(sizes: Sizes) -> WorkFailedError:
    """Say that DuckDB has no room for the rows that it unpacks to give one, which nobody can have it do otherwise."""
    column = f" of the column {sizes.column}" if sizes.column is not None else ""
    # It takes room in powers of two, so what is counted for Arrow's copy may be its own.
    most = 11 * sizes.most_bytes // 10_000_000
    return WorkFailedError(
        f"The values{column} are so large, up to {sizes.longest:,} bytes, that DuckDB has no room for the rows that it "
        f"unpacks together, up to {VECTOR_ROWS:,}: raise HEADRACE_STORE__DUCKDB__MEMORY_LIMIT to {most:,} MB or more, "
        "or leave the column out.",
        code="store.memory",
    )
