"""A run and the only moves its state may make (R1, R2)."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from domain.errors import PlatformError, UnavailableError
from domain.identity.scope import Scope
from domain.runs.report import RunReport
from domain.runs.work import WorkRef

LONGEST_PARAMETER = 10_000

RETRY = "retry: "
"""What the reason of a run begins with that is tried again after a failure."""

LEASE_LOST = "lease_lost"
"""Why the holder of a claim stops that it did not renew in time, or that somebody else has taken."""


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


class WorkPlan(ABC):
    """What a run has planned to do: stored with it, and never planned again on a resume. Only the work that has planned
    it knows what it says.
    """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""


class DamagedPlan(WorkPlan):
    """What stands in the place of a plan and is none: somebody has changed the records. Its run is told so; the others
    that are claimed or shown with it are not concerned.
    """

    def to_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class RunError:
    """Why a run failed: a code, a sentence, whether trying again may help, and whether something was not to be
    reached; None where an earlier version did not note it.
    """

    code: str
    message: str
    retryable: bool | None = None
    unavailable: bool | None = None

    @classmethod
    def of(cls, error: PlatformError) -> "RunError":
        """What is kept of an error."""
        return cls(error.code, error.message, error.retryable, isinstance(error, UnavailableError))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values of what is known."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunError":
        """Rebuild what `to_json` gave, in this version or an earlier one."""
        return cls(str(value.get("code")), str(value.get("message")), value.get("retryable"), value.get("unavailable"))


@dataclass(frozen=True)
class Run:
    """One execution of one revision of its work over one declared read set. Times are UTC.

    `progress` is the number of batches that the destination had when a claim last began to load, `fruitless` how many
    claims in a row began there and brought none (R4). `retries` counts the tries after retryable failures, `due_in`
    the seconds until a queued run may be claimed. `cause` is the run whose commit caused this one (S3). `read_set` is
    its stored plan, which may be large: only who claims a run is given it. `trace` and `correlation_id` are those of
    the request that asked for it.
    """

    id: str
    organization: str
    work: WorkRef
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
    correlation_id: str | None = None
    reason: str | None = None
    read_set: WorkPlan | None = None
    report: RunReport | None = None
    error: RunError | None = None
    requested_by: str = ""
    cancel_requested: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def scope(self) -> Scope:
        """What of the records its writers touch."""
        return Scope(self.organization)

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
    report: RunReport | None = None
    error: RunError | None = None


@dataclass(frozen=True)
class Transition:
    """One line of a run's history: who moved it, when, under which fence, and why (R6). Later ones have a greater
    `place`.
    """

    run_id: str
    before: str | None
    after: str
    fence: int
    actor: str
    reason: str
    at: datetime
    place: int = 0
