"""Frozen facts about what happened, stored in the outbox with the state that caused them."""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """A fact about one run. `event_type` is the stable name that logs and subscribers see."""

    event_type: ClassVar[str] = "event"

    organization: str
    pipeline: str
    run_id: str

    def payload(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return dict(vars(self))


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
class BatchCommitted(Event):
    """One batch and its checkpoint are durable at the destination."""

    event_type: ClassVar[str] = "batch.processed"

    batch_id: str
    rows_read: int
    rows_used: int
    duration_seconds: float
    rows_per_second: float


@dataclass(frozen=True)
class BatchFailed(Event):
    """A batch was rolled back."""

    event_type: ClassVar[str] = "batch.failed"

    batch_id: str
    code: str
    message: str


@dataclass(frozen=True)
class QualityIssueFound(Event):
    """A rule found violations."""

    event_type: ClassVar[str] = "data_quality.issue"

    rule: str
    verdict: str
    violations: int


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
    """A worker gave the run back: it drains, or the run is tried again after a pause."""

    event_type: ClassVar[str] = "pipeline.released"

    reason: str
    retry: int
    pause_seconds: float


@dataclass(frozen=True)
class RunFinished(Event):
    """A run reached a terminal state."""

    event_type: ClassVar[str] = "pipeline.completed"

    state: str
    rows_read: int
    rows_used: int
    duration_seconds: float
    code: str | None = None
    message: str | None = None
