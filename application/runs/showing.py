"""What of a run is shown to whom: numbers, times, states and codes to all who read; sentences and names to who may
preview.

Sentences about a run name columns, files and tables, and some a value's place. So what everybody sees is a list of what
holds none of that, rather than a list of what is taken away.
"""

import hashlib
import re
from dataclasses import replace

from domain.errors import PlatformError, UnavailableError, WorkFailedError
from domain.identity.policy import Action, is_allowed
from domain.identity.principal import Principal
from domain.ports.records.events import StoredEvent
from domain.runs.report import ReadSetPart, RunReport
from domain.runs.run import Run, Transition

_REPORT = frozenset(
    [
        "read_set", "adopted", "complete_as_of", "published", "way", "snapshots", "counts", "bytes_read", "batches",
        "retries", "seconds", "spent", "rows_per_second", "rules", "landed", "merged", "stream", "state", "seq",
        "rows_read", "interrupted",
    ]
)  # fmt: skip
_NESTED = ("streams", "read_sets")
_EVENT = frozenset(
    [
        "organization", "subject", "run_id", "trace", "correlation_id", "batch_id", "rows_read", "record_count",
        "duration_seconds", "records_per_second", "error_type", "rule", "verdict", "violation", "affected_rows",
        "reason", "retry", "pause_seconds", "attempt", "fence", "status", "cause",
    ]
)  # fmt: skip
# A watermark is a value of the cursor; of a time or number nothing is learned but how far the table is complete.
_TIME_OR_NUMBER = re.compile(r"[0-9TZ:+. -]{1,40}")
_OF_STORES = frozenset(
    [
        "store", "source", "file", "table", "cursor", "key", "partitions", "query", "transform", "columns",
        "snapshot", "value", "destination", "schema", "merge", "delete_missing", "path", "secret", "disk_full",
        "identifier",
    ]
)  # fmt: skip
_GENERAL = {
    "quality": "A rule of the pipeline was violated.",
    "transform": "A step of the pipeline does not fit the rows.",
    "destination": "The rows do not fit the destination, or it was changed.",
    "schema": "The rows do not fit the destination, or it was changed.",
    "merge": "The rows do not fit the destination, or it was changed.",
    "value": "A value does not fit its column.",
    "run.conversion": "More rows did not convert than the pipeline allows.",
    "run.timeout": "The run took longer than it may.",
    "connection": "A connection may not be opened as it is.",
    "store": "A store cannot be used, or refused what was asked of it.",
    "source": "What is read is not as the pipeline expects it.",
    "file": "What is read is not as the pipeline expects it.",
    "table": "What is read is not as the pipeline expects it.",
    "query": "What is read is not as the pipeline expects it.",
    "disk_full": "A disk is full.",
}
# So many ask at a time, or there is so little memory, or so few files may be open, whatever for.
_OF_NO_STORE = ("worker.busy", "worker.killed", "process.descriptors")
_WHO_MAY_SEE = " Who may preview the pipeline sees what it was."


def sees_all(principal: Principal) -> bool:
    """Whether somebody may see what tells of data."""
    return is_allowed(principal, Action.PREVIEW)


def general(code: str) -> str:
    """The sentence about a failure that everybody may see."""
    family = code.partition(".")[0]
    return (_GENERAL.get(code) or _GENERAL.get(family) or "The work could not be done.") + _WHO_MAY_SEE


def said_to(principal: Principal | None, error: PlatformError) -> str:
    """What is said of an error: its own sentence, or the general one where a store had a part in it and the caller may
    not look into stores.
    """
    is_of_store = isinstance(error, UnavailableError | WorkFailedError) or error.code.partition(".")[0] in _OF_STORES
    is_of_store = is_of_store and error.code not in _OF_NO_STORE
    is_hidden = principal is not None and not sees_all(principal) and is_of_store
    return general(error.code) if is_hidden else error.message


def run_for(principal: Principal, run: Run) -> Run:
    """A run as somebody may see it."""
    if sees_all(principal):
        return run
    error = run.error
    if error is not None:
        error = replace(error, message=general(error.code))
    return replace(run, error=error, report=_report(run.report) if run.report is not None else None)


def transition_for(principal: Principal, transition: Transition) -> Transition:
    """A line of a run's history as somebody may see it: who does not operate the processes sees one from another, not
    what machine and number it has.
    """
    if is_allowed(principal, Action.OPERATE) or transition.actor.count(":") < 2:
        return transition
    name = hashlib.sha256(transition.actor.encode()).hexdigest()[:8]
    return replace(transition, actor=f"worker-{name}")


def event_for(principal: Principal, event: StoredEvent) -> StoredEvent:
    """An event as somebody may see it."""
    if sees_all(principal):
        return event
    payload = {name: value for name, value in event.payload.items() if name in _EVENT}
    if event.payload.get("error_message") is not None:
        payload["error_message"] = general(str(payload.get("error_type")))
    return replace(event, payload=payload)


def _report(report: RunReport) -> RunReport:
    shown, said = report.only(_REPORT), report.names
    first = _report(report.completed_first) if report.completed_first is not None else None
    of_values = ("watermark",) if "watermark" in said else ()
    nested = tuple(name for name in _NESTED if name in said)
    return replace(
        shown,
        names=(*shown.names, *of_values, *nested, *(("completed_first",) if first is not None else ())),
        watermark=_watermark(report.watermark),
        streams=tuple(stream.only(_REPORT) for stream in report.streams),
        read_sets=tuple(_part(part) for part in report.read_sets),
        completed_first=first,
    )


def _part(part: ReadSetPart) -> ReadSetPart:
    shown = part.only(_REPORT)
    of_values = ("watermark",) if "watermark" in part.names else ()
    return replace(shown, names=(*shown.names, *of_values), watermark=_watermark(part.watermark))


def _watermark(watermark: str | None) -> str | None:
    return watermark if _TIME_OR_NUMBER.fullmatch(str(watermark)) else None
