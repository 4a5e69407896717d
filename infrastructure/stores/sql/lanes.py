"""What the checkpoint table says of a lane, in SQL."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domain.loads.checkpoint import HEAD, LaneState, StreamState
from domain.quality.measures import Counts
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
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
    return read_lane_rows(session, quote_table(checkpoint), (lane.organization, lane.pipeline, lane.name), known)


def read_lane_rows(
    session: Session, checkpoint: str, key: tuple[str, str, str], names: Sequence[str] = _STATE
) -> LaneState:
    """Read the rows of a lane."""
    columns = ", ".join(quote(name) for name in names)
    rows = session.execute(f"SELECT {columns} FROM {checkpoint} WHERE {KEY}", key)
    states = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    head = states.pop(HEAD, None)
    if head is None:
        return LaneState(state="idle", fence=0)
    return LaneState(
        state=head["state"],
        fence=max([head["fence"], *(state["fence"] for state in states.values())]),
        watermark=head["position"],
        read_set_id=head["read_set"],
        stats=json.loads(head["stats"]),
        streams=tuple(_stream_state(states[name]) for name in sorted(states)),
        generation=head["seq"],
        token=head.get("writer"),
    )


def _stream_state(row: Mapping[str, Any]) -> StreamState:
    position = row["position"]
    return StreamState(
        stream=row["stream"],
        seq=row["seq"],
        position=tuple(json.loads(position)) if position else None,
        state=row["state"],
        counts=Counts(**{name: row[name] for name in COUNTS}),
        stats=json.loads(row["stats"]),
        format=row.get("format") or 1,
    )
