"""Which columns a run writes: of its table, and of its stage; the same in every store."""

from domain.pipelines.spec import DeleteMissing
from domain.pipelines.table import DELETED, DELETED_AT, LOADED_AT, RUN_ID, SEQ, Column
from domain.ports.data_store import Target


def landed_columns(target: Target) -> list[Column]:
    """The columns of the destination that a run writes, metadata included."""
    columns = list(target.columns)
    if target.metadata_columns:
        columns += [Column(LOADED_AT, "timestamptz"), Column(RUN_ID, "uuid")]
    if target.delete_missing is DeleteMissing.SOFT:
        columns.append(Column(DELETED_AT, "timestamptz"))
    return columns


def staged_columns(target: Target) -> list[Column]:
    """The columns of the staging table: no time of loading yet, and what a merge needs to find the last row of a key."""
    columns = [column for column in landed_columns(target) if column.name not in (LOADED_AT, DELETED_AT)]
    if target.merges:
        columns.append(Column(SEQ, "int64"))
    if target.deletes:
        columns.append(Column(DELETED, "bool"))
    return columns
