"""What the catalog of a Postgres says of a table's columns, and whether they store what comes unchanged."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from domain.errors import SchemaMismatchError
from domain.loads.way import unlike
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_changed
from infrastructure.stores.postgres.reserved import Catalog
from infrastructure.stores.postgres.types import logical_of, native_of
from infrastructure.stores.sql.session import Session

_COLUMNS_OF = (
    "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_attribute a "
    "WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)

# A table with children shows rows that no index of its own has; a partitioned one has none of its own.
HAS_CHILDREN = "c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhparent = c.oid)"
COLUMNS_AS_JSON = """
  SELECT coalesce(json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull) ORDER BY
  a.attnum), '[]')
  FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"""
"""(name, native type, nullable) of the columns of a table c."""

_COMPUTED = """
  SELECT json_agg(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT
  a.attisdropped"""
_KEY = f"""
  SELECT json_agg(a.attname ORDER BY k.place)
  FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
  WHERE i.indrelid = c.oid AND i.indisprimary AND NOT ({HAS_CHILDREN})"""
# What is behind a foreign table that is a partition, or a child, is another server's.
_PLAIN = """
WITH RECURSIVE tree AS (
  SELECT to_regclass($1)::oid AS oid UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
SELECT bool_and(c.relkind IN ('r', 'p') AND NOT c.relrowsecurity) FROM tree t JOIN pg_class c ON c.oid = t.oid"""
_UNIQUES = """
  SELECT json_agg(u.told ORDER BY u.name) FROM (
    SELECT x.relname AS name, json_build_array(x.relname, json_agg(DISTINCT a.attname::text)) AS told
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    CROSS JOIN LATERAL (
      SELECT unnest((i.indkey::int2[])[0:i.indnkeyatts - 1])::int AS num
      UNION SELECT refobjsubid FROM pg_depend
      WHERE classid = 'pg_class'::regclass AND objid = i.indexrelid AND refobjid = i.indrelid AND i.indexprs IS NOT
      NULL) AS d
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.num
    WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion) AND i.indimmediate AND d.num > 0 GROUP BY 1) AS
    u"""
_DESCRIBED = (
    f"SELECT ({COLUMNS_AS_JSON})::text, ({_KEY})::text, ({_COMPUTED})::text, ({_UNIQUES})::text "
    "FROM pg_class c WHERE c.oid = to_regclass($1)"
)


_UNNAMED = re.compile(r"unnamed<oid:([0-9]+)>")
_TOLD = """
SELECT coalesce(format_type(t.oid, f.modifier), format_type(f.number::oid, f.modifier))
FROM ROWS FROM (json_to_recordset($1::json) AS (name text, number bigint, modifier int)) WITH ORDINALITY
  AS f(name, number, modifier, place)
LEFT JOIN pg_type t ON t.typname = f.name AND t.typnamespace = 'pg_catalog'::regnamespace
ORDER BY f.place"""


def catalog_columns(session: Session, table: TableName) -> list[tuple[str, str, bool]]:
    """Return (name, native type, nullable) of a table's columns in order; empty if there is no such table."""
    rows = session.execute(_COLUMNS_OF, (quote_table(table),))
    return [(name, kind, nullable) for name, kind, nullable in rows]


def collations(session: Session, table: TableName) -> dict[str, str]:
    """The COLLATE clause of each column that has a collation of its own, which says what it holds equal."""
    rows = session.execute(
        "SELECT a.attname::text, n.nspname::text, c.collname::text FROM pg_attribute a "
        "JOIN pg_type t ON t.oid = a.atttypid JOIN pg_collation c ON c.oid = a.attcollation "
        "JOIN pg_namespace n ON n.oid = c.collnamespace WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 "
        "AND NOT a.attisdropped AND a.attcollation <> t.typcollation",
        (quote_table(table),),
    )
    return {name: f" COLLATE {quote(schema)}.{quote(collation)}" for name, schema, collation in rows}


def describe(session: Session, table: TableName) -> TableSchema | None:
    """Describe a table, view or foreign table, or None."""
    found = session.execute(_DESCRIBED, (quote_table(table),))
    columns, key, computed, uniques = (json.loads(text or "[]") for text in found[0]) if found else ([],) * 4
    if not columns:
        return None
    return TableSchema(
        name=table,
        columns=tuple(Column(name, logical_of(kind), is_null, name in computed) for name, kind, is_null in columns),
        primary_key=tuple(key),
        uniques=tuple((name, tuple(names)) for name, names in uniques),
    )


def check_type(session: Session, column: Column) -> None:
    """Refuse a column whose type is of the source's own and missing here.

    Raises:
        SchemaMismatchError: it is (`destination.type_missing`).
    """
    native = native_of(column.type)
    if column.type.startswith("native:") and session.execute("SELECT to_regtype($1) IS NULL", (native,))[0][0]:
        raise SchemaMismatchError(
            f"The column {column.name} has the type {native}, which the destination does not have: create the type "
            "(or its extension) there, or cast the column to text in the source query.",
            code="destination.type_missing",
        )


def check_landing_types(table: TableName, types: Mapping[str, str], landing: Mapping[str, str]) -> None:
    """Refuse columns that would not store a value of the given types unchanged."""
    different = unlike(types, landing)
    if different is not None:
        raise landing_changed(table, different)


def foreign(session: Session, natives: Iterable[str]) -> frozenset[str]:
    """Which types are not built in: their numbers, which are part of some encodings, differ between databases."""
    found = session.execute(
        "SELECT t FROM json_array_elements_text($1::json) AS t WHERE (to_regtype(t)::oid < 10000) IS NOT TRUE",
        (json.dumps(sorted(set(natives))),),
    )
    return frozenset(native for (native,) in found)


def plain_tables(session: Catalog, names: Iterable[str]) -> bool:
    """Whether all of these, and what is a part of them, are ordinary tables without row security: nothing of a user's
    runs when they are read.
    """
    found = [session.execute(_PLAIN, (name,)) for name in names]
    return all(rows and rows[0][0] is True for rows in found)


def types_told(session: Session, fields: Sequence[pa.Field]) -> dict[str, str]:
    """The native types of a result's fields; nothing for those whose type the driver does not tell."""
    asked = []
    for field in fields:
        told = field.metadata or {}
        name = (told.get(b"POSTGRESQL:type") or told[b"ADBC:postgresql:typname"]).decode()
        # Ranges, and what was created after the driver learned the types, are known by number alone.
        number = _UNNAMED.fullmatch(name)
        modifier = int(told.get(b"POSTGRESQL:typmod", b"-1"))
        asked.append({"name": None if number else name, "number": number and int(number[1]), "modifier": modifier})
    rows = session.execute(_TOLD, (json.dumps(asked),))
    return {field.name: str(kind or "") for field, (kind,) in zip(fields, rows, strict=True)}
