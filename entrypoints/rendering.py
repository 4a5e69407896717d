"""Use-case results as plain JSON, the same at every door."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from application.answers import AnswerLimits
from application.loads.report import end_body
from application.pipelines.inspect import PipelineStatus, Preview
from application.pipelines.quarantine import RefusedPage
from application.plain_rows import rows_of
from domain.errors import InvalidInputError
from domain.loads.checkpoint import LaneState, Position
from domain.loads.horizon import ReadEnd
from domain.loads.quarantine import RefusedRow
from domain.ports.identity import StoredKey
from domain.ports.unit_of_work import StoredEvent, WorkerRecord
from domain.runs.run import Run, Transition
from domain.stores.table import TableSchema
from entrypoints.answer_size import cells, first_of, fitted, not_all
from entrypoints.cursors import cursor_of, place_of

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
        "counts": preview.counts.as_dict(),
        "first_errors": preview.stats.get("first_errors", []),
        **({"note": "; ".join(notes)} if notes else {}),
    }


def _rows(preview: Preview) -> Iterator[dict[str, Any]]:
    """The rows, a few at a time: a value of one bit is an object and a name in each row's text."""
    for batch in preview.batches:
        step = max(1, _VALUES_AT_ONCE // max(1, len(preview.columns)))
        for start in range(0, batch.num_rows, step):
            for row in rows_of(batch.slice(start, step)):  # type: ignore[attr-defined]
                yield {name: _plain(value) for name, value in row.items()}


def shown_run(run: Run, limits: AnswerLimits) -> dict[str, Any]:
    """A run as the API shows it, long texts cut where it would be too large."""
    body: dict[str, Any] = fitted(run_body(run), limits.answer_bytes)
    return body


def run_body(run: Run) -> dict[str, Any]:
    """All that is told of a run."""
    return {
        "id": run.id,
        "pipeline": run.pipeline,
        "revision": run.revision,
        "lane": run.lane,
        "state": run.state.value,
        "attempt": run.attempt,
        "reason": run.reason,
        "cancel_requested": run.cancel_requested,
        "requested_by": run.requested_by,
        "request": {
            "parameters": dict(run.request.parameters),
            "limit": run.request.limit,
            "full_refresh": run.request.full_refresh,
            "abandon": run.request.abandon,
            "replay": run.request.replay,
        },
        "retries": run.retries,
        "cause": run.cause,
        "trace": run.trace,
        "created_at": run.created_at.isoformat() if run.created_at else None,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "report": run.report,
        "error": run.error,
    }


_REFUSED = re.compile(r"[0-9a-f-]{36}~[A-Za-z0-9_-]{1,20}~[0-9]{1,18}~[0-9]{1,18}")


def refused_place_of(organization: str, pipeline: str, cursor: str | None) -> Position | None:
    """The place that a cursor over the refused rows of a pipeline names.

    Raises:
        InvalidInputError: it is none of ours (`request.cursor`).
    """
    place = place_of(organization, f"refused rows of {pipeline}", cursor, parts=4)
    if place is not None and not _REFUSED.fullmatch("~".join(place)):
        raise InvalidInputError("The cursor is none that a page of this list has given.", code="request.cursor")
    return place


def refused_page_body(organization: str, pipeline: str, page: RefusedPage, limits: AnswerLimits) -> dict[str, Any]:
    """Refused rows, as many as there is room for, and the cursor of the next page."""
    items = first_of(page.rows, lambda row: refused_body(row, limits), limits.answer_bytes)
    following = page.next_place if len(items) == len(page.rows) else page.rows[len(items) - 1].place
    return {"items": items, "next_cursor": cursor_of(organization, f"refused rows of {pipeline}", following)}


def refused_body(row: RefusedRow, limits: AnswerLimits) -> dict[str, Any]:
    """A refused row, with the row as it was read; of long values their beginning."""
    read_set, stream, seq, ordinal = row.place
    return {
        "read_set": read_set,
        "stream": stream,
        "seq": int(seq),
        "ordinal": int(ordinal),
        "run_id": row.run_id,
        "kind": row.kind,
        "rule": row.rule,
        "reason": fitted(row.reason, limits.cell_bytes),
        "record": cells(json.loads(row.record), limits.cell_bytes),
        "state": row.state.value,
        "settled_by": row.settled_by,
        "refused_at": row.refused_at.isoformat(),
    }


def transition_body(transition: Transition) -> dict[str, Any]:
    """A line of a run's history."""
    return {
        "from": transition.before,
        "to": transition.after,
        "fence": transition.fence,
        "actor": transition.actor,
        "reason": transition.reason,
        "at": transition.at.isoformat(),
    }


def status_body(status: PipelineStatus) -> dict[str, Any]:
    """Where a pipeline stands."""
    last = status.last_run
    report = (last.report or {}) if last else {}
    return {
        "pipeline": status.name,
        "revision": status.revision,
        "watermark": report.get("watermark"),
        "last_run": run_body(last) if last else None,
    }


def state_body(name: str, state: LaneState) -> dict[str, Any]:
    """Position and watermark at the destination."""
    return {
        "pipeline": name,
        "state": state.state,
        "watermark": state.watermark,
        **end_body((None if state.is_loading else state.end) or ReadEnd()),
        "fence": state.fence,
        "counts": state.counts.as_dict(),
        "streams": [
            {
                "stream": stream.stream,
                "state": stream.state,
                "seq": stream.seq,
                "position": list(stream.position) if stream.position else None,
                "counts": stream.counts.as_dict(),
            }
            for stream in state.streams
        ],
    }


def logs_body(transitions: Sequence[Transition], events: Sequence[StoredEvent]) -> list[dict[str, Any]]:
    """The history and the stored events of a run as lines, oldest first."""
    lines = [{"at": line.at.isoformat(), "event": f"run.{line.after}", **transition_body(line)} for line in transitions]
    kept = ("organization", "pipeline", "run_id")
    lines += [
        {
            "at": event.created_at.isoformat(),
            "event": event.event_type,
            **{name: value for name, value in event.payload.items() if name not in kept and value is not None},
        }
        for event in events
    ]
    return sorted(lines, key=lambda line: line["at"])


def key_body(key: StoredKey, state: str) -> dict[str, Any]:
    """What is stored of an API key; the key itself is nowhere."""
    return {
        "prefix": key.prefix,
        "subject": key.subject,
        "roles": list(key.roles),
        "state": state,
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def workers_body(workers: Sequence[WorkerRecord], depth: int | None) -> dict[str, Any]:
    """The processes that live, and the queue's depth, null while it cannot be reached."""
    return {
        "items": [
            {
                "id": worker.id,
                "roles": worker.roles.split(),
                "host": worker.host,
                "version": worker.version,
                "concurrency": worker.concurrency,
                "running": worker.running,
                "state": "draining" if worker.drain_requested else worker.state,
                "started_at": worker.started_at.isoformat() if worker.started_at else None,
            }
            for worker in workers
        ],
        "queue_depth": depth,
    }


def table_body(schema: TableSchema) -> dict[str, Any]:
    """A table's columns and key."""
    return {
        "table": str(schema.name),
        "columns": [{"name": c.name, "type": c.type, "nullable": c.nullable} for c in schema.columns],
        "primary_key": list(schema.primary_key),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if hasattr(value, "nanoseconds"):  # An interval of Arrow's.
        return f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} seconds"
    return value if isinstance(value, str | int | float | bool | None) else str(value)
