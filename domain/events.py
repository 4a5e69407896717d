"""Frozen facts about what happened: a run's are stored in the outbox with the state that caused them, a batch's are
told at once.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from domain.runs.run import Run
from domain.runs.work import WorkName


@dataclass(frozen=True)
class Origin:
    """Where an event comes from: a run of some work, its subject, and the request and trace that asked for it."""

    organization: str
    subject: WorkName
    run_id: str
    correlation_id: str | None = None
    trace: str | None = None

    @classmethod
    def of(cls, run: Run) -> "Origin":
        """That of what happens to a run."""
        return cls(run.organization, run.work.named, run.id, run.correlation_id, run.trace)

    def to_json(self) -> dict[str, Any]:
        """Return what is known as plain JSON values."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        return known | {"subject": {"kind": self.subject.kind.value, "name": self.subject.name}}


@dataclass(frozen=True)
class Event:
    """A fact about one run. `event_type` is the stable name that logs and subscribers see."""

    event_type: ClassVar[str] = "event"

    origin: Origin

    def payload(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, with those of the origin."""
        return self.origin.to_json() | {name: value for name, value in vars(self).items() if name != "origin"}


@dataclass(frozen=True)
class RunQueued(Event):
    """A run was asked for and stored."""

    event_type: ClassVar[str] = "pipeline.queued"

    cause: str | None = None


@dataclass(frozen=True)
class RunStarted(Event):
    """A worker claimed the run."""

    event_type: ClassVar[str] = "pipeline.started"

    attempt: int
    fence: int


@dataclass(frozen=True)
class StreamStarted(Event):
    """A stream begins to read, where an attempt before it has left it."""

    event_type: ClassVar[str] = "stream.started"

    stream: str


@dataclass(frozen=True)
class StreamCompleted(Event):
    """A stream has come to its end, or as far as it was let; the numbers are those of this attempt."""

    event_type: ClassVar[str] = "stream.completed"

    stream: str
    status: str
    rows_read: int
    batches: int
    duration_seconds: float
    records_per_second: float


@dataclass(frozen=True)
class StreamFailed(Event):
    """A stream ended before its end; batches that it had committed stay."""

    event_type: ClassVar[str] = "stream.failed"

    stream: str
    error_type: str
    error_message: str


@dataclass(frozen=True)
class BatchCommitted(Event):
    """One batch and its checkpoint are durable at the destination."""

    event_type: ClassVar[str] = "batch.processed"

    batch_id: str
    rows_read: int
    record_count: int
    duration_seconds: float
    records_per_second: float
    quarantined_count: int = 0


@dataclass(frozen=True)
class BatchFailed(Event):
    """A batch was refused, or rolled back."""

    event_type: ClassVar[str] = "batch.failed"

    batch_id: str
    record_count: int
    error_type: str
    error_message: str


@dataclass(frozen=True)
class QualityIssueFound(Event):
    """A rule found violations; with the verdict `fail` the batch, or all that the run has read, was refused for it."""

    event_type: ClassVar[str] = "data_quality.issue"

    rule: str
    verdict: str
    value: float | None
    threshold: float | None
    affected_rows: int
    column: str | None
    source_connection: str
    source_table: str | None


@dataclass(frozen=True)
class SchemaViolationFound(Event):
    """Rows did not have the columns or types that were expected: a value that did not convert (`unconverted`), a column
    that was left out (`column_discarded`) or one that the destination got (`column_added`).
    """

    event_type: ClassVar[str] = "data_quality.schema_violation"

    violation: str
    column: str
    affected_rows: int


@dataclass(frozen=True)
class RunReleased(Event):
    """A worker gave the run back: it drains, or the run is tried again after a pause for the error that is named."""

    event_type: ClassVar[str] = "pipeline.released"

    reason: str
    retry: int
    pause_seconds: float
    error_type: str | None = None
    error_message: str | None = None


@dataclass(frozen=True)
class RunFinished(Event):
    """A run reached a terminal state, its `status`."""

    event_type: ClassVar[str] = "pipeline.completed"

    status: str
    reason: str
    rows_read: int
    record_count: int
    duration_seconds: float
    error_type: str | None = None
    error_message: str | None = None
    complete_as_of: str | None = None
