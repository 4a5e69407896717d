"""Which columns a run writes, of its table and of its stage, and what is wrong with a landing table; in every store."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from domain.errors import ConflictError, SchemaMismatchError
from domain.loads.checkpoint import LaneState, Merged
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import DeleteMissing, Mode
from domain.ports.data_store import Target
from domain.runs.lane import Lane
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


def refuse_second_writer(target: Target, lane: Lane, writers: Iterable[tuple[str, str, str]]) -> None:
    """Refuse to open a load into a table of which these are known: organization, pipeline and mode of each writer.

    Raises:
        ConflictError: another pipeline writes it, and one of them replaces it (`destination.owned`).
    """
    for organization, pipeline, mode in writers:
        is_other = (organization, pipeline) != (lane.organization, lane.pipeline)
        if is_other and (mode == Mode.REPLACE or target.replaces):
            raise ConflictError(
                f"The table {target.table} is written by another pipeline ({pipeline}), and a table that is replaced "
                "has one writer only.",
                code="destination.owned",
            )


@dataclass(frozen=True)
class Leftovers:
    """What an open read set would leave: a stage from which nobody can go on, and a table that it made itself."""

    stage: str | None = None
    has_made_table: bool = False


def leftovers(state: LaneState) -> Leftovers:
    """What is left of a read set that is not published. A stage with committed batches in order is no leftover."""
    read_set = state.stats.get("read_set")
    if not state.is_loading or read_set is None:
        return Leftovers()
    stage = read_set.get("shadow")
    is_of_use = state.seq > 0 and read_set["plan"]["ordered"]
    return Leftovers(None if is_of_use else stage, bool(state.stats.get("made_table")) and state.seq == 0)


def opened_stats(read_set: ReadSet, target: Target, previous: LaneState, *, is_new: bool) -> dict[str, Any]:
    """What the head keeps of a read set while it is open; `made_table` says that the table was made for it."""
    is_made = is_new and target.shadow is None  # A stage becomes the table only when it is published.
    stats = {"read_set": read_set.to_json(), "fingerprint": read_set.fingerprint}
    return stats | ({"made_table": True} if is_made or previous.stats.get("made_table") else {})


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
