"""Where the first refused rows of a run stand, for its report: a file and a line, or a row of a batch."""

from collections.abc import Sequence
from dataclasses import replace

from domain.first_errors import MOST_FIRST_ERRORS, FirstError
from domain.loads.checkpoint import StreamState
from domain.ports.data_store import IReader, SourceBatch
from domain.quality.measures import Measures


async def placed(
    errors: Sequence[FirstError], batch: SourceBatch, reader: IReader, *, stream: str, seq: int | None = None
) -> tuple[FirstError, ...]:
    """Give each of a batch's first errors its place."""
    found = []
    for error in errors:
        ordinal = error.ordinal or 0
        there = await reader.place(batch, ordinal) or row_of(ordinal, stream=stream, seq=seq)
        found.append(error.at(stream, there))
    return tuple(found)


def row_of(ordinal: int, *, stream: str, seq: int | None) -> str:
    """Name a row of which nothing but its batch is known."""
    return f"row {ordinal + 1} of {'its batch' if seq is None else f'batch {seq}'} in stream {stream}"


async def placed_in_report(measures: Measures, state: StreamState, batch: SourceBatch, reader: IReader) -> Measures:
    """Give places to as many errors of a batch as the report still has room for: to find a line is slow."""
    if not measures.first_errors:
        return measures
    room = max(0, MOST_FIRST_ERRORS - len(state.measures.first_errors))
    errors = await placed(measures.first_errors[:room], batch, reader, stream=state.stream, seq=state.seq + 1)
    return replace(measures, first_errors=errors)


def counted_in_report(measures: Measures, state: StreamState) -> Measures:
    """The same for rows that passed undecoded: they are known by their batch."""
    stream, seq = state.stream, state.seq + 1
    errors = [error.at(stream, row_of(error.ordinal or 0, stream=stream, seq=seq)) for error in measures.first_errors]
    return replace(measures, first_errors=tuple(errors))
