"""What the in-memory store holds, and how rows are appended to it or merged into it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pyarrow as pa

from domain.loads.checkpoint import LaneState, Merged
from domain.pipelines.spec import DeleteMissing
from domain.ports.data_store import Target
from domain.runs.lane import Lane
from domain.stores.table import DELETED, DELETED_AT, LOADED_AT, SEQ, Column, TableName
from infrastructure.clock import utc_now
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.overtaken import Compared
from infrastructure.stores.sql.merge import too_many_missing
from infrastructure.tabular.arrow import arrow_type, conform


@dataclass
class Content:
    """Everything the store holds. A transaction works on a shallow copy, put in place when it ends well, so what lies
    in the mappings is replaced and never changed.
    """

    tables: dict[str, tuple[tuple[Column, ...], pa.Table]] = field(default_factory=dict)
    lanes: dict[Lane, LaneState] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    owners: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    deletions: dict[str, dict[tuple[str, str], str | None]] = field(default_factory=dict)


def create_table(content: Content, table: TableName, columns: Sequence[Column]) -> None:
    """Create an empty table."""
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in columns])
    content.tables[str(table)] = (tuple(columns), schema.empty_table())


def append_rows(content: Content, table: TableName, rows: pa.Table) -> None:
    """Append rows conformed to the table's columns."""
    if str(table) not in content.tables:
        raise landing_gone(table)
    columns, existing = content.tables[str(table)]
    content.tables[str(table)] = (columns, pa.concat_tables([existing, conform(rows, columns)]))


def merge_rows(content: Content, target: Target, rows: pa.Table) -> Merged:
    """Update, insert and delete by key; of each key the last row counts."""
    columns, existing = content.tables[str(target.table)]
    names = [name for name in rows.column_names if name not in (DELETED, SEQ)]
    found = {_key(row, target): row for row in existing.to_pylist()}
    last = {_key(row, target): row for row in rows.to_pylist()}
    done = Counter[str]()
    for key, row in last.items():
        if target.newest_by is not None and key in found and found[key][target.newest_by] >= row[target.newest_by]:
            continue
        if row.get(DELETED):
            done["deleted"] += found.pop(key, None) is not None
            continue
        done["updated" if key in found else "inserted"] += 1
        back = {DELETED_AT: None} if target.delete_missing is DeleteMissing.SOFT else {}
        found[key] = {**found.get(key, {}), **{name: row[name] for name in names}, **back}
    merged = pa.Table.from_pylist(list(found.values()), existing.schema)
    content.tables[str(target.table)] = (columns, merged)
    return Merged(done["inserted"], done["updated"], done["deleted"], rows.num_rows - len(last))


def compared(content: Content, target: Target, rows: pa.Table) -> list[Compared]:
    """Compare each row with the table and with the others."""
    _, existing = content.tables[str(target.table)]
    by = target.newest_by
    there = {_key(row, target): row.get(by or "") for row in existing.to_pylist()}
    first, found = dict[tuple[Any, ...], int](), list[Compared]()
    given = [(_key(row, target), row.get(by or "")) for row in rows.to_pylist()]
    ranks = {cursor: rank for rank, cursor in enumerate(sorted({cursor for _, cursor in given if cursor is not None}))}
    for number, (key, cursor) in enumerate(given):
        newest = there.get(key)
        is_later = newest is not None and cursor is not None and newest >= cursor
        found.append(Compared(first.setdefault(key, number), key in there, is_later, ranks.get(cursor)))
    return found


def merge_stage(content: Content, target: Target) -> Merged:
    """Merge the staging table."""
    assert target.shadow is not None
    _, staged = content.tables.pop(str(target.table.beside(target.shadow)))
    last = {_key(row, target): row for row in sorted(staged.to_pylist(), key=lambda row: int(row[SEQ]))}
    columns, existing = content.tables[str(target.table)]
    now, gone, merged = utc_now(), 0, Merged()
    if target.replaces:
        content.tables[str(target.table)] = (columns, existing.slice(0, 0))
    elif target.delete_missing is not None:
        rows, gone = _without_missing(target, existing, set(last), now)
        content.tables[str(target.table)] = (columns, rows)
    kept = [{name: value for name, value in row.items() if name != SEQ} for row in last.values()]
    if target.metadata_columns:
        kept = [{**row, LOADED_AT: now} for row in kept]
    if kept:
        names = [name for name in dict.fromkeys((*staged.column_names, LOADED_AT)) if name in kept[0]]
        fields = {**{f.name: f for f in existing.schema}, DELETED: pa.field(DELETED, pa.bool_())}
        merged = merge_rows(content, target, pa.Table.from_pylist(kept, pa.schema([fields[name] for name in names])))
    return replace(merged, deleted=merged.deleted + gone, repeated=int(staged.num_rows) - len(last))


def _without_missing(target: Target, rows: pa.Table, keys: set[tuple[Any, ...]], now: datetime) -> tuple[pa.Table, int]:
    is_soft = target.delete_missing is DeleteMissing.SOFT
    found = rows.to_pylist()
    living = [row for row in found if not is_soft or row[DELETED_AT] is None]
    gone = [row for row in living if _key(row, target) not in keys]
    if len(gone) > target.max_deleted_share * len(living):
        raise too_many_missing(len(gone), len(living), target.max_deleted_share)
    if is_soft:
        for row in gone:
            row[DELETED_AT] = now
    else:
        found = [row for row in found if _key(row, target) in keys]
    return pa.Table.from_pylist(found, rows.schema), len(gone)


def _key(row: dict[str, Any], target: Target) -> tuple[Any, ...]:
    values = (row[name] for name in target.key)
    return tuple("NaN" if value != value else value for value in values)  # NaN is a key like any other.
