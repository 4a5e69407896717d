"""Whether the catalog of a Postgres proves that a key is one, and which types have a place in an order."""

import json

from domain.errors import InvalidInputError
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.positions import (
    MAX_TIES,
    is_understood,
    key_type,
    place_unclear,
    untrusted_null,
    untrusted_ties,
)
from infrastructure.stores.postgres.catalog import HAS_CHILDREN
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession

# NOT NULL may be declared without having been validated.
_NEVER_NULL = (
    "a.attnotnull AND NOT EXISTS (SELECT 1 FROM pg_constraint n WHERE n.conrelid = a.attrelid AND n.contype = 'n' "
    "AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated)"
)
_COLUMNS = "SELECT jsonb_array_elements_text($2::jsonb)"
# The index is over columns of the key alone, and holds values equal where the order of the read does.
_PROVES = (
    "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid WHERE c.oid = to_regclass($1) "
    f"AND c.relkind IN ('r', 'p') AND NOT ({HAS_CHILDREN}) AND i.indisunique AND i.indisvalid AND i.indisready "
    "AND i.indislive AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS ("
    "SELECT 1 FROM generate_series(0, i.indnkeyatts - 1) AS k LEFT JOIN pg_attribute a ON a.attrelid = c.oid "
    "AND a.attnum = i.indkey[k] LEFT JOIN pg_opclass o ON o.oid = i.indclass[k] "
    f"WHERE a.attname IS NULL OR a.attname::text NOT IN ({_COLUMNS}) OR i.indcollation[k] <> a.attcollation "
    "OR NOT o.opcdefault)) AND NOT EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = to_regclass($1) "
    f"AND a.attname::text IN ({_COLUMNS}) AND NOT ({_NEVER_NULL}))"
)


def never_null(session: PostgresSession, table: TableName) -> frozenset[str]:
    """The columns that can hold no NULL."""
    found = session.execute(
        f"SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 "
        f"AND NOT a.attisdropped AND {_NEVER_NULL}",
        (quote_table(table),),
    )
    return frozenset(name for (name,) in found)


def is_proved(session: PostgresSession, source: SourceSpec) -> bool:
    """Whether no two rows of a source can share their place in its order, and none lacks a part of it."""
    if source.table is None or not source.order:
        return False
    found = session.execute(_PROVES, (quote_table(source.table), json.dumps(source.order)))
    return bool(found[0][0])


def why_untrusted(
    session: PostgresSession, source: SourceSpec, selection: Selection, where: str, *, looks_for_ties: bool
) -> str | None:
    """Why a key that is not proved is no place to go on from, or None; its settings are bound.

    Raises:
        InvalidInputError: a column of it has no order (`key.type`).
    """
    for name in source.order:
        _check_ordered(session, name, selection)
    known = never_null(session, source.table) if source.table else frozenset()
    nullable = [name for name in source.order if name not in known]
    is_null = " OR ".join(f"{quote(name)} IS NULL" for name in nullable)
    if nullable and session.execute(f"SELECT 1 FROM {selection.text} WHERE {where} AND ({is_null}) LIMIT 1"):
        return untrusted_null(source.key)
    keys = ", ".join(quote(name) for name in source.order)
    many = f"SELECT 1 FROM {selection.text} WHERE {where} GROUP BY {keys} HAVING count(*) > {MAX_TIES} LIMIT 1"
    return untrusted_ties(source.key) if keys and looks_for_ties and session.execute(many) else None


def check_place(
    session: PostgresSession, source: SourceSpec, plan: SourcePlan, stream: Stream, place: Position
) -> None:
    """Refuse to go on after a place of an earlier version unless exactly one row holds it and none lacks a part of its
    key.

    Raises:
        ConflictError: some rows may have landed and others not (`run.place_unclear`).
    """
    if is_understood(plan, place) and is_proved(session, source):
        return
    selection = Selection.of(session, source)
    where = selection.belonging(source, plan, stream)
    here = selection.after(plan.order, place, comparison="=")
    session.bind(selection.settings)
    is_null = " OR ".join(f"{quote(name)} IS NULL" for name in plan.order)
    if (
        not is_understood(plan, place)
        or session.execute(f"SELECT 1 FROM {selection.text} WHERE {where} AND ({is_null}) LIMIT 1")
        or len(session.execute(f"SELECT 1 FROM {selection.text} WHERE {where} AND {here} LIMIT 2")) != 1
    ):
        raise place_unclear()


def _check_ordered(session: PostgresSession, name: str, selection: Selection) -> None:
    native = selection.casts[name]
    try:
        # A value of it can be written, read back and compared.
        session.execute(
            f"SELECT 1 FROM (SELECT NULL::{native} AS value) AS one WHERE (value) > "
            f"(current_setting('TimeZone')::{native}) AND false ORDER BY value"
        )
        is_pseudo = session.execute("SELECT typtype = 'p' FROM pg_type WHERE oid = to_regtype($1)", (native,))
    except InvalidInputError as error:
        raise key_type(name, selection.natives[name]) from error
    if is_pseudo and is_pseudo[0][0]:
        raise key_type(name, selection.natives[name])
