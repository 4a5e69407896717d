"""What the in-memory store holds, and how rows are appended to it or merged into it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from domain.pipelines.checkpoint import LaneState
from domain.pipelines.read_set import Lane
from domain.pipelines.spec import DeleteMissing
from domain.pipelines.table import DELETED, DELETED_AT, LOADED_AT, SEQ, Column, TableName
from domain.ports.data_store import Target
from infrastructure.arrow import arrow_type, conform
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.sql_merge import too_many_missing


@dataclass
class Content:
    """Everything the store holds. A transaction works on a shallow copy, put in place when it ends well, so what lies
    in the mappings is replaced and never changed.
    """

    tables: dict[str, tuple[tuple[Column, ...], pa.Table]] = field(default_factory=dict)
    lanes: dict[Lane, LaneState] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)
    owners: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)


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


def merge_rows(content: Content, target: Target, rows: pa.Table) -> None:
    """Update, insert and delete by key; each key comes once."""
    columns, existing = content.tables[str(target.table)]
    names = [name for name in rows.column_names if name != DELETED]
    found = {_key(row, target): row for row in existing.to_pylist()}
    for row in rows.to_pylist():
        key = _key(row, target)
        if target.newest_by is not None and key in found and found[key][target.newest_by] > row[target.newest_by]:
            continue
        if row.get(DELETED):
            found.pop(key, None)
            continue
        back = {DELETED_AT: None} if target.delete_missing is DeleteMissing.SOFT else {}
        found[key] = {**found.get(key, {}), **{name: row[name] for name in names}, **back}
    merged = pa.Table.from_pylist(list(found.values()), existing.schema)
    content.tables[str(target.table)] = (columns, merged)


def merge_stage(content: Content, target: Target) -> int:
    """Merge the staging table; return how many staged rows were not the last of their key."""
    assert target.shadow is not None
    _, staged = content.tables.pop(str(target.table.beside(target.shadow)))
    last = {_key(row, target): row for row in sorted(staged.to_pylist(), key=lambda row: int(row[SEQ]))}
    columns, existing = content.tables[str(target.table)]
    now = datetime.now(UTC)
    if target.replaces:
        content.tables[str(target.table)] = (columns, existing.slice(0, 0))
    elif target.delete_missing is not None:
        content.tables[str(target.table)] = (columns, _without_missing(target, existing, set(last), now))
    kept = [{name: value for name, value in row.items() if name != SEQ} for row in last.values()]
    if target.metadata_columns:
        kept = [{**row, LOADED_AT: now} for row in kept]
    if kept:
        names = [name for name in dict.fromkeys((*staged.column_names, LOADED_AT)) if name in kept[0]]
        fields = {**{f.name: f for f in existing.schema}, DELETED: pa.field(DELETED, pa.bool_())}
        merge_rows(content, target, pa.Table.from_pylist(kept, pa.schema([fields[name] for name in names])))
    return int(staged.num_rows) - len(last)


def _without_missing(target: Target, rows: pa.Table, keys: set[tuple[Any, ...]], now: datetime) -> pa.Table:
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
    return pa.Table.from_pylist(found, rows.schema)


def _key(row: dict[str, Any], target: Target) -> tuple[Any, ...]:
    return tuple(row[name] for name in target.key)
