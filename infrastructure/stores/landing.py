"""Which columns a run writes, of its table and of its stage, and what is wrong with a landing table; in every store."""

import pyarrow as pa

from domain.errors import SchemaMismatchError
from domain.loads.checkpoint import Merged
from domain.pipelines.spec import DeleteMissing
from domain.ports.data_store import Target
from domain.stores.table import DELETED, DELETED_AT, LOADED_AT, RUN_ID, SEQ, Column, TableName

_ROW_BITS = 32


def landing_of(target: Target) -> TableName:
    """The table in which batches land: the staging table, if there is one."""
    return target.table.beside(target.shadow) if target.shadow else target.table


def landing_gone(table: TableName) -> SchemaMismatchError:
    """Say that somebody has dropped the table under the run."""
    return SchemaMismatchError(f"The table {table} is gone.", code="destination.missing")


def landing_changed(table: TableName, column: str) -> SchemaMismatchError:
    """Say that somebody has changed a column under the run, so that it would not store a value unchanged."""
    return SchemaMismatchError(
        f"The column {column} of {table} is gone or has another type than when the run began; nothing of the batch was "
        "written.",
        code="destination.changed",
    )


def landed_columns(target: Target) -> list[Column]:
    """The columns of the destination that a run writes, metadata included."""
    columns = list(target.columns)
    if target.metadata_columns:
        columns += [Column(LOADED_AT, "timestamptz"), Column(RUN_ID, "uuid")]
    if target.delete_missing is DeleteMissing.SOFT:
        columns.append(Column(DELETED_AT, "timestamptz"))
    return columns


def staged_columns(target: Target) -> list[Column]:
    """The columns of the staging table: no time of loading yet, and what a merge needs to find the last row
    of a key.
    """
    columns = list(target.columns)
    if target.metadata_columns:
        columns.append(Column(RUN_ID, "uuid"))
    if target.merges:
        columns.append(Column(SEQ, "int64"))
    if target.deletes:
        columns.append(Column(DELETED, "bool"))
    return columns


def nothing_merged(target: Target) -> Merged | None:
    """What a batch without rows does to the table that it is merged into; None where nothing is merged by now."""
    return Merged() if target.merges and target.shadow is None else None


def places_of(seq: int, count: int) -> pa.Array:
    """Number the rows of a batch so that a later row has a greater number, in this batch and in later ones."""
    return pa.array(range(seq << _ROW_BITS, (seq << _ROW_BITS) + count), pa.int64())
