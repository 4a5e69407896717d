"""What the catalog of a Postgres says of a table's columns, and whether they store what comes unchanged."""

import json
from collections.abc import Iterable, Mapping

from domain.errors import SchemaMismatchError
from domain.pipelines.table import Column, TableName, TableSchema
from domain.pipelines.way import unlike
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_changed
from infrastructure.stores.postgres_types import logical_of, native_of
from infrastructure.stores.sql_session import Session

COLUMNS_OF = (
    "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_attribute a "
    "WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)

# A table with children shows rows that no index of its own has; a partitioned one has none of its own.
HAS_CHILDREN = "c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhparent = c.oid)"
_COMPUTED = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attgenerated <> '' AND NOT attisdropped"

_UNIQUES = """
SELECT c.relname::text, json_agg(DISTINCT a.attname::text)::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL (
  SELECT unnest((i.indkey::int2[])[0:i.indnkeyatts - 1])::int AS num
  UNION SELECT refobjsubid FROM pg_depend
  WHERE classid = 'pg_class'::regclass AND objid = i.indexrelid AND refobjid = i.indrelid AND i.indexprs IS NOT NULL) AS d
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.num
WHERE i.indrelid = to_regclass($1) AND (i.indisunique OR i.indisexclusion) AND i.indimmediate AND d.num > 0 GROUP BY 1 ORDER BY 1"""


def catalog_columns(session: Session, table: TableName) -> list[tuple[str, str, bool]]:
    """Return (name, native type, nullable) of a table's columns in order; empty if there is no such table."""
    rows = session.execute(COLUMNS_OF, (quote_table(table),))
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
    columns = catalog_columns(session, table)
    if not columns:
        return None
    key = session.execute(
        "SELECT a.attname::text FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, place) "
        "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum "
        "WHERE i.indrelid = to_regclass($1) AND i.indisprimary AND NOT EXISTS (SELECT 1 FROM pg_class c "
        f"WHERE c.oid = i.indrelid AND {HAS_CHILDREN}) ORDER BY k.place",
        (quote_table(table),),
    )
    computed = {name for (name,) in session.execute(_COMPUTED, (quote_table(table),))}
    return TableSchema(
        name=table,
        columns=tuple(Column(name, logical_of(kind), nullable, name in computed) for name, kind, nullable in columns),
        primary_key=tuple(row[0] for row in key),
        uniques=tuple(
            (name, tuple(json.loads(names))) for name, names in session.execute(_UNIQUES, (quote_table(table),))
        ),
    )


def check_type(session: Session, column: Column) -> None:
    """Refuse a column whose type is of the source's own and missing here.

    Raises:
        SchemaMismatchError: it is (`destination.type_missing`).
    """
    native = native_of(column.type)
    if column.type.startswith("native:") and session.execute("SELECT to_regtype($1) IS NULL", (native,))[0][0]:
        raise SchemaMismatchError(
            f"The column {column.name} has the type {native}, which the destination does not have: create the type (or its "
            "extension) there, or cast the column to text in the source query.",
            code="destination.type_missing",
        )


def check_landing_types(table: TableName, types: Mapping[str, str], landing: Mapping[str, str]) -> None:
    """Refuse columns that would not store a value of the given types unchanged."""
    different = unlike(types, landing)
    if different is not None:
        raise landing_changed(table, different)


def foreign(session: Session, natives: Iterable[str]) -> frozenset[str]:
    """Which types are not built in: their numbers, which are part of some encodings, differ between databases."""
    found = {native: session.execute("SELECT to_regtype($1)::oid < 10000", (native,)) for native in set(natives)}
    return frozenset(native for native, rows in found.items() if rows[0][0] is not True)


def plain_tables(session: Session, names: Iterable[str]) -> bool:
    """Whether all of these are ordinary tables without row security: nothing of a user's runs when they are read."""
    found = [
        session.execute(
            "SELECT c.relkind IN ('r', 'p') AND NOT c.relrowsecurity FROM pg_class c WHERE c.oid = to_regclass($1)",
            (name,),
        )
        for name in names
    ]
    return all(rows and rows[0][0] is True for rows in found)
