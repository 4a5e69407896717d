"""Where the first refused rows of a run stand, for its report: a file and a line, or a row of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from domain.loads.checkpoint import StreamState
from domain.ports.data_store import IReader, SourceBatch

_KEPT = 10


async def placed(
    errors: Sequence[Mapping[str, Any]], batch: SourceBatch, reader: IReader, *, stream: str, seq: int | None = None
) -> list[dict[str, Any]]:
    """Give each of a batch's first errors its place."""
    told = []
    for error in errors:
        ordinal = int(error["ordinal"])
        there = await reader.place(batch, ordinal) or row_of(ordinal, stream=stream, seq=seq)
        told.append({**error, "stream": stream, "place": there})
    return told


def row_of(ordinal: int, *, stream: str, seq: int | None) -> str:
    """Name a row of which nothing but its batch is known."""
    return f"row {ordinal + 1} of {'its batch' if seq is None else f'batch {seq}'} in stream {stream}"


async def placed_in_report(
    stats: Mapping[str, Any], state: StreamState, batch: SourceBatch, reader: IReader
) -> Mapping[str, Any]:
    """Give places to as many errors of a batch as the report still has room for: to find a line is slow."""
    if not stats.get("first_errors"):
        return stats
    room = max(0, _KEPT - len(state.stats.get("first_errors", ())))
    errors = await placed(stats["first_errors"][:room], batch, reader, stream=state.stream, seq=state.seq + 1)
    return {**stats, "first_errors": errors}


def counted_in_report(stats: Mapping[str, Any], state: StreamState) -> Mapping[str, Any]:
    """The same for rows that passed undecoded: they are known by their batch."""
    errors = stats.get("first_errors", ())
    told = [
        {
            **error,
            "stream": state.stream,
            "place": row_of(int(error["ordinal"]), stream=state.stream, seq=state.seq + 1),
        }
        for error in errors
    ]
    return {**stats, "first_errors": told} if told else stats
