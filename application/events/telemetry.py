"""The subscriber that makes log lines and numbers of events, so that the heart has no counters in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from application.events.freshness import Freshness
from application.log import current_trace_id, log
from domain.errors import QualityRejectedError
from domain.events import (
    BatchCommitted,
    BatchFailed,
    QualityIssueFound,
    RunFinished,
    RunReleased,
    SchemaViolationFound,
    StreamFailed,
)
from domain.ports.runtime import IClock
from domain.ports.telemetry import ITelemetry
from domain.runs.run import RETRY, RunState
from domain.runs.work import WorkKind

# Small batches come by the hundred a second, and nobody reads so many lines.
_BATCH_LINES_A_SECOND = 10
_WARNINGS = frozenset(
    event.event_type for event in (BatchFailed, StreamFailed, QualityIssueFound, SchemaViolationFound)
)


@dataclass
class EventTelemetry:
    """Writes each event as one canonical line, and counts what is worth counting of it. Lines say which run of which
    work of whom they are about, and by which request and trace, also where they are written in another process than
    that of the run.
    """

    telemetry: ITelemetry
    clock: IClock
    freshness: Freshness = field(default_factory=Freshness)
    _second: int = 0
    _lines: int = 0

    def __call__(self, event_type: str, payload: Mapping[str, Any]) -> None:
        """Take note of an event."""
        subject, rest = payload["subject"], dict(payload)
        for name in ("subject", "organization", "trace"):
            rest.pop(name, None)
        whose = {f"{subject['kind']}_id": subject["name"], "organization_id": payload["organization"]}
        line = {"event_type": event_type, **whose, **_traced(payload.get("trace")), **rest}
        getattr(log, self._level(event_type, payload.get("status")))(event_type, **line)
        labels = {subject["kind"]: subject["name"], "organization": payload["organization"]}
        self._count(event_type, payload, labels)

    def _count(self, event_type: str, payload: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        count, observe = self.telemetry.count, self.telemetry.observe
        match event_type:
            case BatchCommitted.event_type:
                done = {**labels, "status": "succeeded"}
                count("pipeline.records.processed", payload["record_count"], done)
                count("pipeline.records.quarantined", payload.get("quarantined_count", 0), labels)
                observe("pipeline.batch.duration", payload["duration_seconds"], done)
                observe("pipeline.batch.size", payload["rows_read"], done)
            case BatchFailed.event_type:
                status = "rejected" if payload["error_type"] == QualityRejectedError.code else "failed"
                count("pipeline.records.failed", payload["record_count"], {**labels, "status": status})
            case RunFinished.event_type:
                ended = {**labels, "status": payload["status"]}
                count("pipeline.runs", 1, ended)
                observe("pipeline.run.duration", payload["duration_seconds"], ended)
                if payload["status"] == RunState.SUCCEEDED and payload["subject"]["kind"] == WorkKind.PIPELINE:
                    begun = self.clock.now() - timedelta(seconds=payload["duration_seconds"])
                    whose = payload["organization"], payload["subject"]["name"]
                    self.freshness.note(*whose, payload.get("complete_as_of"), begun)
            case RunReleased.event_type if payload["reason"].startswith(RETRY):
                count("pipeline.run.retries", 1, labels)
            case QualityIssueFound.event_type:
                # What people write into a rule of theirs is no label: its kind and its column are.
                kind, column = payload["rule"].partition("(")[0], payload["column"] or ""
                rule = {**labels, "rule": kind, "column": column}
                count("pipeline.quality.violations", payload["affected_rows"], {**rule, "verdict": payload["verdict"]})
                if payload["value"] is not None:
                    self.telemetry.gauge("pipeline.quality.value", payload["value"], rule)
            case SchemaViolationFound.event_type:
                violation = {**labels, "violation": payload["violation"]}
                count("pipeline.schema.violations", payload["affected_rows"], violation)

    def _level(self, event_type: str, status: str | None) -> str:
        if event_type == RunFinished.event_type and status == RunState.FAILED:
            return "error"
        if event_type in _WARNINGS:
            return "warning"
        return "debug" if event_type == BatchCommitted.event_type and self._are_many() else "info"

    def _are_many(self) -> bool:
        """Whether so many lines of batches were written in this second that one more is noise."""
        second = int(self.clock.monotonic())
        self._second, self._lines = second, self._lines + 1 if second == self._second else 1
        return self._lines > _BATCH_LINES_A_SECOND


def _traced(trace: str | None) -> dict[str, str]:
    """The ids of a trace, unless the caller is in it: then the span that it is in says more."""
    if trace is None or ((current := current_trace_id()) is not None and current in trace):
        return {}
    parts = trace.split("-")
    return {"trace_id": parts[1], "span_id": parts[2]} if len(parts) == 4 else {}
