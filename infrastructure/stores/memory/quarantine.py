"""The quarantine of the in-memory store: listing refused rows, and what becomes of them with their run (D9)."""

from collections.abc import Sequence
from typing import Any

from domain.errors import FencedError
from domain.loads.checkpoint import Position
from domain.loads.quarantine import Refusals, RefusedRow, RefusedState
from domain.loads.read_set import OF_CHOSEN_PARAMETERS, ReadSet
from domain.ports.data_store import Batch, Target
from domain.runs.lane import Lane
from infrastructure.stores.memory.content import Content
from infrastructure.stores.replayed import ReadAgain, may_be_read_again

_KEPT = ("run_id", "kind", "rule", "reason", "record", "columns", "state", "settled_by", "refused_at")


def refused_rows(content: Content, refusals: Refusals, after: Position | None) -> list[RefusedRow]:
    """List refused rows strictly after a place, in order."""
    chosen = sorted((row for row in content.quarantine if _belongs(row, refusals)), key=_order)
    return [
        RefusedRow(
            place=(row["read_set"], row["stream"], str(row["seq"]), str(row["ordinal"])),
            **{name: row[name] for name in _KEPT if name != "settled_by"},
            # Of an open one it says which read set has read it again.
            settled_by=row["settled_by"] if row["state"] is not RefusedState.OPEN else None,
        )
        for row in chosen
        if after is None or _order(row) > (after[0], after[1], int(after[2]), int(after[3]))
    ]


def mark_repaired(content: Content, lane: Lane, run_id: str, places: Sequence[Position]) -> None:
    """Mark what a replayed batch has put into the table.

    Raises:
        FencedError: another run has dealt with one of them.
    """
    wanted = {(read_set, stream, int(seq), int(ordinal)) for read_set, stream, seq, ordinal in places}
    settled = {"state": RefusedState.REPAIRED, "settled_by": run_id}
    marked = 0
    for number, row in enumerate(content.quarantine):
        is_mine = (row["org"], row["pipeline"], row["state"]) == (lane.organization, lane.pipeline, RefusedState.OPEN)
        if is_mine and _order(row) in wanted:
            content.quarantine[number] = {**row, **settled}
            marked += 1
    if marked != len(wanted):
        raise FencedError("Another run has dealt with some of the refused rows; nothing was written.")


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


def settle_refused(content: Content, lane: Lane, target: Target, read_set: ReadSet) -> None:
    """The run is published: what it has read again is superseded, and what it refused may be replayed from now on."""
    is_whole = target.merges and read_set.is_whole and lane.is_main
    mine = (lane.organization, lane.pipeline, str(target.table), RefusedState.OPEN)
    settled = {"state": RefusedState.SUPERSEDED, "settled_by": target.run_id}
    content.quarantine = [
        {**row, **settled}
        if (row["org"], row["pipeline"], row["target"], row["state"]) == mine
        and (
            target.replaces
            or row["settled_by"] == read_set.id
            or (is_whole and not row["read_set"].endswith(OF_CHOSEN_PARAMETERS))
        )
        else row
        for row in content.quarantine
    ]
    move_refused(content, lane, RefusedState.WAITING, RefusedState.OPEN)


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
