"""Previews of pipelines, and where they stand."""

from collections.abc import Iterator
from typing import Any

from application.answers import AnswerLimits
from application.pipelines.preview import Preview
from application.pipelines.state import PipelineStatus
from application.plain_rows import rows_of
from domain.loads.checkpoint import LaneState
from domain.loads.horizon import ReadEnd
from entrypoints.answers.runs import run_body
from entrypoints.answers.sizes import cells, first_of, not_all

_VALUES_AT_ONCE = 10_000


def preview_body(preview: Preview, limits: AnswerLimits) -> dict[str, Any]:
    """Columns, rows and counts of a preview; values that JSON has no type for are text, and long ones are cut."""
    rows = first_of(_rows(preview), lambda row: cells(row, limits.cell_bytes), limits.answer_bytes)
    count = sum(batch.num_rows for batch in preview.batches)
    notes = [preview.note] if preview.note else []
    if len(rows) < count:
        notes.append(not_all(len(rows), count, limits.answer_bytes))
    return {
        "columns": [{"name": name, "type": kind} for name, kind in preview.columns],
        "rows": rows,
        "counts": preview.counts.to_json(),
        "first_errors": [error.to_json() for error in preview.measures.first_errors],
        **({"note": "; ".join(notes)} if notes else {}),
    }


def _rows(preview: Preview) -> Iterator[dict[str, Any]]:
    """The rows, a few at a time: a value of one bit is an object and a name in each row's text."""
    for batch in preview.batches:
        step = max(1, _VALUES_AT_ONCE // max(1, len(preview.columns)))
        for start in range(0, batch.num_rows, step):
            for row in rows_of(batch.slice(start, step)):  # type: ignore[attr-defined]
                yield {name: _plain(value) for name, value in row.items()}


def status_body(status: PipelineStatus) -> dict[str, Any]:
    """Where a pipeline stands."""
    last = status.last_run
    report = last.report if last is not None else None
    return {
        "pipeline": status.name,
        "revision": status.revision,
        "watermark": report.watermark if report is not None else None,
        "last_run": run_body(last) if last else None,
    }


def state_body(name: str, state: LaneState) -> dict[str, Any]:
    """Position and watermark at the destination."""
    return {
        "pipeline": name,
        "state": state.state,
        "watermark": state.watermark,
        **_end_body((None if state.is_loading else state.memory.latest_end) or ReadEnd()),
        "fence": state.fence,
        "counts": state.counts.to_json(),
        "streams": [
            {
                "stream": stream.stream,
                "state": stream.state,
                "seq": stream.seq,
                "position": list(stream.position) if stream.position else None,
                "counts": stream.counts.to_json(),
            }
            for stream in state.streams
        ],
    }


def _end_body(end: ReadEnd) -> dict[str, Any]:
    """Why a read by a cursor ended where it did."""
    words = {name: list(sentences) for name, sentences in end.words.items()}
    return {"complete_as_of": end.complete_as_of, **({"cursor": words} if words else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if hasattr(value, "nanoseconds"):  # An interval of Arrow's.
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} seconds"
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):  # The entries of a map are pairs.
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
