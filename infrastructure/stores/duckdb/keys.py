"""Whether the catalog of a DuckDB proves that a key is one, and which keys are no place to go on from."""

import duckdb

from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from infrastructure.sql import quote
from infrastructure.stores.duckdb.cursor import fetch, natives_of
from infrastructure.stores.duckdb.selection import belonging, bounds, from_item
from infrastructure.stores.positions import (
    MAX_TIES,
    is_understood,
    key_type,
    place_unclear,
    untrusted_null,
    untrusted_ties,
)
from infrastructure.tabular.duckdb_types import logical_of

_NESTED = ("STRUCT", "MAP", "UNION", "VARIANT", "GEOMETRY")


def is_proved(cursor: duckdb.DuckDBPyConnection, source: SourceSpec) -> bool:
    """Whether no two rows of a source can share their place in its order, and none lacks a part of it.

    A text's constraint compares its bytes, while an order may go by a collation.
    """
    if source.table is None or not source.order:
        return False
    natives = natives_of(cursor, *from_item(source))
    if any(natives.get(name) == "VARCHAR" for name in source.order):
        return False
    where = (
        "database_name = current_database() AND lower(schema_name) = lower($schema) AND lower(table_name) = "
        "lower($table)"
    )
    found = fetch(
        cursor,
        f"SELECT constraint_type, constraint_column_names FROM duckdb_constraints() WHERE {where}",
        {"schema": source.table.schema or "main", "table": source.table.table},
    )
    never_null = {name for kind, names in found if kind in ("PRIMARY KEY", "NOT NULL") for name in names}
    unique = [set(names) for kind, names in found if kind in ("PRIMARY KEY", "UNIQUE")]
    return set(source.order) <= never_null and any(names <= set(source.order) for names in unique)


def why_untrusted(
    cursor: duckdb.DuckDBPyConnection, source: SourceSpec, lo: str | None, hi: str | None, *, looks_for_ties: bool
) -> str | None:
    """Why a key that is not proved is no place to go on from, or None.

    Raises:
        InvalidInputError: a column of it has no order (`key.type`).
    """
    text, parameters = from_item(source)
    natives = natives_of(cursor, text, parameters)
    for name in source.order:
        if natives[name].startswith(_NESTED) or natives[name].endswith("]"):
            raise key_type(name, natives[name])
    column = source.cursor.column if source.cursor else None
    where, bound = bounds(column, logical_of(natives[column]), lo, hi) if column else ("true", {})
    is_null = " OR ".join(f"{quote(name)} IS NULL" for name in source.order) or "false"
    found = fetch(cursor, f"SELECT 1 FROM {text} WHERE {where} AND ({is_null}) LIMIT 1", {**parameters, **bound})
    if found:
        return untrusted_null(source.key)
    keys = ", ".join(quote(name) for name in source.order)
    if not keys or not looks_for_ties:
        return None
    many = f"SELECT 1 FROM {text} WHERE {where} GROUP BY {keys} HAVING count(*) > {MAX_TIES} LIMIT 1"
    return untrusted_ties(source.key) if fetch(cursor, many, {**parameters, **bound}) else None


def check_place(
    cursor: duckdb.DuckDBPyConnection, source: SourceSpec, plan: SourcePlan, stream: Stream, place: Position
) -> None:
    """Refuse to go on after a place of an earlier version unless exactly one row holds it and none lacks a part of its
    key.

    Raises:
        ConflictError: some rows may have landed and others not (`run.place_unclear`).
    """
    if is_understood(plan, place) and is_proved(cursor, source):
        return
    text, parameters = from_item(source)
    natives = natives_of(cursor, text, parameters)
    if not is_understood(plan, place) or why_untrusted(cursor, source, plan.lo, plan.hi, looks_for_ties=False):
        raise place_unclear()
    where, bound = belonging(source, plan, stream, place, natives, comparison="=")
    if len(fetch(cursor, f"SELECT 1 FROM {text} WHERE {where} LIMIT 2", {**parameters, **bound})) != 1:
        raise place_unclear()
