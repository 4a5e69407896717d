"""What the checkpoint table says of a lane, in SQL."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domain.loads.checkpoint import HEAD, LaneState, StreamState
from domain.loads.memory import LaneMemory
from domain.quality.measures import Counts, Measures
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.own_rows import MOST, telling_damage
from infrastructure.stores.sql.session import CHECKPOINT, COUNTS, Session

KEY = '"org" = $1 AND "pipeline" = $2 AND "lane" = $3'
_STATE = ("stream", "read_set", "fence", "seq", "position", "state", *COUNTS, "stats", "writer", "format")


def read_lane(session: Session, lane: Lane, table: TableName) -> LaneState:
    """Read a lane in a transaction of its own; blocking."""
    checkpoint = table.beside(CHECKPOINT)
    existing = session.describe(checkpoint)
    if existing is None:
        return LaneState(state="idle", fence=0)
    # Whoever only looks does not bring the table of an earlier version up to date.
    known = [name for name in _STATE if existing.has(name)]
    return read_lane_rows(session, checkpoint, (lane.organization, lane.pipeline, lane.name), known)


def read_lane_rows(
    session: Session, checkpoint: TableName, key: tuple[str, str, str], names: Sequence[str] = _STATE
) -> LaneState:
    """Read the rows of a lane.

    Raises:
        StoreRefusedError: they are not as Headrace writes them (`destination.records`).
    """
    columns = ", ".join(quote(name) for name in names)
    rows = session.execute(f"SELECT {columns} FROM {quote_table(checkpoint)} WHERE {KEY}", key)
    states = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    with telling_damage(checkpoint):
        return _lane_state(states)


def _lane_state(states: dict[str, dict[str, Any]]) -> LaneState:
    for row in states.values():
        _check_numbers(row)
    head = states.pop(HEAD, None)
    if head is None:
        return LaneState(state="idle", fence=0)
    return LaneState(
        state=head["state"],
        fence=max([head["fence"], *(state["fence"] for state in states.values())]),
        watermark=head["position"],
        read_set_id=head["read_set"],
        memory=LaneMemory.from_json(json.loads(head["stats"])),
        streams=tuple(_stream_state(states[name]) for name in sorted(states)),
        generation=head["seq"],
        token=head.get("writer"),
    )


def _check_numbers(row: Mapping[str, Any]) -> None:
    if not all(0 <= row[name] < MOST for name in ("fence", "seq", *COUNTS)):
        raise ValueError("a number is none of ours")


def _stream_state(row: Mapping[str, Any]) -> StreamState:
    position = row["position"]
    return StreamState(
        stream=row["stream"],
        seq=row["seq"],
        position=tuple(json.loads(position)) if position else None,
        state=row["state"],
        counts=Counts(**{name: row[name] for name in COUNTS}),
        measures=Measures.from_json(json.loads(row["stats"])),
        format=row.get("format") or 1,
    )
