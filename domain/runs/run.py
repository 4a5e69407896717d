"""A run and the only moves its state may make (R1, R2)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

LONGEST_PARAMETER = 10_000

RETRY = "retry: "
"""What the reason of a run begins with that is tried again after a failure."""


class RunState(StrEnum):
    """States of a run; the last four are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_terminal(self) -> bool:
        """A terminal state absorbs."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


ALLOWED_MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.SKIPPED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
    RunState.SKIPPED: frozenset(),
}


def is_parameter(value: Any) -> bool:
    """Whether a value may be asked for: what JSON and every store can say, since it is shown with the run."""
    match value:
        case None | bool():
            return True
        case int():
            return -(2**63) <= value < 2**63
        case float():
            return math.isfinite(value)
        case str():
            return len(value) <= LONGEST_PARAMETER and not re.search(r"[\x00\ud800-\udfff]", value)
    return False


def may_move(before: RunState, after: RunState) -> bool:
    """Say whether the state machine knows this move."""
    return after in ALLOWED_MOVES[before]


@dataclass(frozen=True)
class RunRequest:
    """What the caller asked of this run, beside the pipeline's spec.

    `abandon` forgets what the lane left unfinished. `replay` says which refused rows to replay: `all`, or a run's, by
    its id.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    full_refresh: bool = False
    abandon: bool = False
    replay: str | None = None


@dataclass(frozen=True)
class Run:
    """One execution of one revision over one declared read set. Times are UTC.

    `progress` is the number of batches that the destination had when a claim last began to load, `fruitless` how many
    claims in a row began there and brought none (R4). `retries` counts the tries after retryable failures, `due_in`
    the seconds until a queued run may be claimed. `cause` is the run whose commit caused this one (S3).
    """

    id: str
    organization: str
    pipeline: str
    revision: int
    lane: str
    state: RunState
    request: RunRequest
    fence: int = 0
    attempt: int = 0
    progress: int = 0
    fruitless: int = 0
    retries: int = 0
    due_in: float = 0.0
    cause: str | None = None
    trace: str | None = None
    reason: str | None = None
    read_set: Mapping[str, Any] | None = None
    report: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    requested_by: str = ""
    cancel_requested: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def waits_to_retry(self) -> bool:
        """Whether it was given back to be tried again, rather than left for another process."""
        return self.state is RunState.QUEUED and (self.reason or "").startswith(RETRY)


@dataclass(frozen=True)
class Ring:
    """What the doorbell says: which run may be claimed, whose it is, and the trace it belongs to."""

    organization: str
    run_id: str
    trace: str | None = None


@dataclass(frozen=True)
class Finish:
    """The end of a claimed run, to be written under its fence."""

    run_id: str
    fence: int
    state: RunState
    reason: str
    report: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Transition:
    """One line of a run's history: who moved it, when, under which fence, and why (R6)."""

    run_id: str
    before: str | None
    after: str
    fence: int
    actor: str
    reason: str
    at: datetime
