"""Runs, as they are shown and listed."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from application.answers import AnswerLimits
from domain.ports.records.page import Page
from domain.runs import run as runs
from entrypoints.answers.cursors import following, single_place_of
from entrypoints.answers.sizes import fitted

_LIST = "run"


class Run(BaseModel):
    """A run: its state and, once it is at its end, its report or error."""

    id: str
    pipeline: str
    revision: int
    lane: str
    state: str
    attempt: int
    reason: str | None
    cancel_requested: bool
    requested_by: str
    request: dict[str, Any]
    retries: int
    cause: str | None
    trace: str | None
    correlation_id: str | None
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    report: Annotated[
        dict[str, Any] | None,
        Field(
            description="What it did: `counts` over source rows; after a merge, `merged` says how many rows of the "
            "table were `inserted`, `updated` and `deleted`; `streams` has both for each stream."
        ),
    ]
    error: dict[str, Any] | None


class RunPage(BaseModel):
    """Runs, newest first, and where the next page begins."""

    items: list[Run]
    next_cursor: str | None


def run_place_of(organization: str, cursor: str | None) -> str | None:
    """The run that a cursor over runs names.

    Raises:
        InvalidInputError: it is none of ours (`request.cursor`).
    """
    return single_place_of(organization, _LIST, cursor)


def runs_body(organization: str, page: Page, limits: AnswerLimits) -> dict[str, Any]:
    """A page of runs, and the cursor of the next one."""
    return {
        "items": [shown_run(run, limits) for run in page.items],
        "next_cursor": following(organization, _LIST, page),
    }


def shown_run(run: runs.Run, limits: AnswerLimits) -> dict[str, Any]:
    """A run as the API shows it, long texts cut where it would be too large."""
    body: dict[str, Any] = fitted(run_body(run), limits.answer_bytes)
    return body


def run_body(run: runs.Run) -> dict[str, Any]:
    """All that is told of a run."""
    return {
        "id": run.id,
        "pipeline": run.work.name,
        "revision": run.work.revision,
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
        "correlation_id": run.correlation_id,
        "created_at": run.created_at.isoformat() if run.created_at else None,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "report": run.report.to_json() if run.report is not None else None,
        "error": run.error.to_json() if run.error is not None else None,
    }
