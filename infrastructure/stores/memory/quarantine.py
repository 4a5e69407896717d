"""The quarantine of the in-memory store: listing refused rows, and what becomes of them with their run (D9)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from domain.loads.checkpoint import Merged, Position
from domain.loads.quarantine import LEFT, Refusals, RefusedRow, RefusedState
from domain.loads.read_set import OF_CHOSEN_PARAMETERS, ReadSet
from domain.ports.data_store import Batch, JudgedBatch, Target
from domain.runs.lane import Lane
from infrastructure.stores.memory.content import Content, compared, merge_rows
from infrastructure.stores.overtaken import (
    Kept,
    Replayed,
    is_before,
    landing_keys,
    may_be_gone,
    overtaken_within,
    repaired,
)
from infrastructure.stores.replayed import ReadAgain, may_be_read_again
from infrastructure.tabular.arrow import to_table

_KEPT = ("run_id", "kind", "rule", "reason", "record", "columns", "state", "settled_by", "refused_at")


def refused_rows(content: Content, refusals: Refusals, after: Position | None) -> list[RefusedRow]:
    """List refused rows strictly after a place, in order."""
    chosen = sorted((row for row in content.quarantine if _belongs(row, refusals)), key=_order)
    return [
        RefusedRow(
            place=_place(row),
            **{name: row[name] for name in _KEPT if name != "settled_by"},
            # Until a run is published it says by which read set the row will be settled.
            settled_by=None if row["state"] in (RefusedState.OPEN, RefusedState.WAITING) else row["settled_by"],
        )
        for row in chosen
        if after is None or _order(row) > (after[0], after[1], int(after[2]), int(after[3]))
    ]


def open_places(content: Content, lane: Lane) -> set[Position]:
    """The places of a pipeline's rows that are open."""
    mine = (lane.organization, lane.pipeline, RefusedState.OPEN)
    return {_place(row) for row in content.quarantine if (row["org"], row["pipeline"], row["state"]) == mine}


def mark_repaired(content: Content, lane: Lane, run_id: str, places: Sequence[Position]) -> None:
    """Mark what a replayed batch has put into the table."""
    wanted = {(read_set, stream, int(seq), int(ordinal)) for read_set, stream, seq, ordinal in places}
    settled = {"state": RefusedState.REPAIRED, "settled_by": run_id}
    for number, row in enumerate(content.quarantine):
        if (row["org"], row["pipeline"]) == (lane.organization, lane.pipeline) and _order(row) in wanted:
            content.quarantine[number] = {**row, **settled}


def move_refused(content: Content, lane: Lane, before: RefusedState, after: RefusedState) -> None:
    """Move the refused rows of a lane from one state to another."""
    mine = (lane.organization, lane.pipeline, lane.name, before)
    content.quarantine = [
        {**row, "state": after} if (row["org"], row["pipeline"], row["lane"], row["state"]) == mine else row
        for row in content.quarantine
    ]


def note_read_again(content: Content, lane: Lane, target: Target, read_set_id: str, rows: Batch | None) -> None:
    """Note the open refusals of earlier runs whose rows a batch has again: they are superseded when it is published."""
    if not target.source_key or rows is None:
        return
    again = ReadAgain(target.source_key, refused_rows(content, may_be_read_again(lane, target), None))
    found = {(read_set, stream, int(seq), int(ordinal)) for read_set, stream, seq, ordinal in again.places(rows)}
    content.quarantine = [
        {**row, "settled_by": read_set_id} if _order(row) in found else row for row in content.quarantine
    ]


def settle_refused(content: Content, lane: Lane, target: Target, read_set: ReadSet, *, knows_missing: bool) -> None:
    """The run is published: what it has read again is superseded, and what it refused may be replayed from now on."""
    is_whole = target.merges and read_set.is_whole and lane.is_main
    mine = (lane.organization, lane.pipeline, str(target.table), RefusedState.OPEN)
    settled = {"state": RefusedState.SUPERSEDED, "settled_by": target.run_id}

    def supersede(is_meant: Callable[[dict[str, Any]], bool]) -> None:
        content.quarantine = [
            {**row, **settled}
            if (row["org"], row["pipeline"], row["target"], row["state"]) == mine and is_meant(row)
            else row
            for row in content.quarantine
        ]

    is_all = target.replaces or (knows_missing and target.delete_missing is not None)
    supersede(lambda row: is_all or (is_whole and not row["read_set"].endswith(OF_CHOSEN_PARAMETERS)))
    move_refused(content, lane, RefusedState.WAITING, RefusedState.OPEN)
    supersede(lambda row: row["settled_by"] == read_set.id)


def settle_overtaken(
    content: Content, lane: Lane, target: Target, read_set_id: str, batch: JudgedBatch
) -> list[dict[str, Any]]:
    """Settle the refusals of which a batch lands a later row; give the fate of each that it refuses itself."""
    waiting = {"state": RefusedState.WAITING, "settled_by": None}
    if not target.merges:
        return [waiting] * batch.refused.num_rows
    own = to_table(batch.refused).column("merge_key")
    if own.null_count == len(own) and not any(row["merge_key"] for row in content.quarantine):
        return [waiting] * len(own)
    landing = landing_keys(batch, target)
    settled: dict[str, Any] = {"state": RefusedState.SUPERSEDED, "settled_by": target.run_id}
    if target.shadow is not None:
        settled = {"settled_by": read_set_id}
    for number, row in enumerate(content.quarantine):
        is_open = row["state"] is RefusedState.OPEN
        is_own = row["state"] is RefusedState.WAITING and row["read_set"] == read_set_id
        if _is_of(row, lane, target) and (is_open or is_own) and row["merge_key"] in landing:
            content.quarantine[number] = {**row, **settled}
    return [waiting | (settled if is_so else {}) for is_so in overtaken_within(batch, landing)]


def merge_replayed(content: Content, lane: Lane, target: Target, rows: pa.Table, batch: JudgedBatch) -> Merged:
    """Merge what is replayed and may land, mark it, say of the rest why it stays, and supersede what was refused before
    a row that has landed.
    """
    replayed = Replayed.of(batch, target)
    known = {_place(row): row for row in content.quarantine}
    lanes = {other.name for other in content.lanes if other.pipeline == lane.pipeline} - {lane.name}
    mine = (lane.organization, lane.pipeline)
    noted = content.deletions.get(str(target.table), {})
    others = [found for writer, found in noted.items() if writer != mine]
    kept = {
        place: Kept(known[place]["merge_key"], not others and lanes <= {known[place]["lane"]})
        for place in replayed.places
        if place in known
    }
    exact = not any(pa.types.is_floating(rows.column(name).type) for name in target.key)
    proven = replayed.proven(kept if exact else {})
    gone = may_be_gone(target, [noted.get(mine)], others)
    landing = replayed.landing(proven, compared(content, target, rows), target, may_be_gone=gone)
    part = rows.filter(landing.mask(rows.num_rows))
    merged = replayed.merged(landing, merge_rows(content, replace(target, newest_by=None), part))
    origins = batch.origins or ()
    left = {origins[ordinal] for ordinal in landing.left}
    mark_repaired(content, lane, target.run_id, repaired(batch, landing.left))
    landed = replayed.landed(landing.left)
    for number, row in enumerate(content.quarantine):
        key, place = row["merge_key"], _place(row)
        if place in left and not row["reason"].endswith(LEFT):
            content.quarantine[number] = row = {**row, "reason": f"{row['reason']}; {LEFT}"}
        is_open = _is_of(row, lane, target) and row["state"] is RefusedState.OPEN
        if is_open and key in landed and is_before(place, landed[key]):
            fate = {"state": RefusedState.SUPERSEDED, "settled_by": target.run_id}
            content.quarantine[number] = {**row, **fate}
    return merged


def _is_of(row: dict[str, Any], lane: Lane, target: Target) -> bool:
    mine = (lane.organization, lane.pipeline, str(target.table))
    return (row["org"], row["pipeline"], row["target"]) == mine


def _place(row: dict[str, Any]) -> Position:
    return row["read_set"], row["stream"], str(row["seq"]), str(row["ordinal"])


def _belongs(row: dict[str, Any], refusals: Refusals) -> bool:
    mine = (refusals.organization, refusals.pipeline, str(refusals.table))
    is_of_run = refusals.run_id is None or row["run_id"] == refusals.run_id
    return (
        (row["org"], row["pipeline"], row["target"]) == mine
        and is_of_run
        and (refusals.state is None or row["state"] == refusals.state)
        and (refusals.lane is None or row["lane"] == refusals.lane)
    )


def _order(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["read_set"], row["stream"], row["seq"], row["ordinal"]
