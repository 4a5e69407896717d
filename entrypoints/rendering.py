"""Use-case results as plain JSON, the same at every door."""

import json
import re
from collections.abc import Sequence
from typing import Any

from application.pipelines.inspect import PipelineStatus, Preview
from application.pipelines.quarantine import RefusedPage
from application.pipelines.reporting import end_body
from domain.errors import InvalidInputError
from domain.pipelines.checkpoint import LaneState, Position
from domain.pipelines.horizon import ReadEnd
from domain.pipelines.quarantine import RefusedRow
from domain.pipelines.run import Run, Transition
from domain.pipelines.table import TableSchema
from domain.ports.identity import StoredKey
from domain.ports.unit_of_work import StoredEvent, WorkerRecord
from entrypoints.cursors import cursor_of, place_of


def preview_body(preview: Preview) -> dict[str, Any]:
    """Columns, rows and counts of a preview; values that JSON has no type for are text."""
    rows: list[dict[str, Any]] = []
    for batch in preview.batches:
        to_pylist = getattr(batch, "to_pylist", list)
        rows += [{name: _plain(value) for name, value in row.items()} for row in to_pylist()]
    return {
        "columns": [{"name": name, "type": kind} for name, kind in preview.columns],
        "rows": rows,
        "counts": preview.counts.as_dict(),
        "first_errors": preview.stats.get("first_errors", []),
        **({"note": preview.note} if preview.note else {}),
    }


def run_body(run: Run) -> dict[str, Any]:
    """A run as the API shows it."""
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


def refused_page_body(organization: str, pipeline: str, page: RefusedPage) -> dict[str, Any]:
    """Refused rows, and the cursor of the next page."""
    cursor = cursor_of(organization, f"refused rows of {pipeline}", page.next_place)
    return {"items": [refused_body(row) for row in page.rows], "next_cursor": cursor}


def refused_body(row: RefusedRow) -> dict[str, Any]:
    """A refused row, with the row as it was read."""
    read_set, stream, seq, ordinal = row.place
    return {
        "read_set": read_set,
        "stream": stream,
        "seq": int(seq),
        "ordinal": int(ordinal),
        "run_id": row.run_id,
        "kind": row.kind,
        "rule": row.rule,
        "reason": row.reason,
        "record": json.loads(row.record),
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
