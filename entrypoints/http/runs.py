"""Runs over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from domain.runs.run import RunState
from entrypoints.answers.histories import log_place_of, logs_body, transition_place_of, transitions_body
from entrypoints.answers.runs import (
    Run,
    RunPage,
    run_body,
    run_place_of,
    runs_body,
    shown_run,
)
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Caller, Canceller, Cases, Place, Starter
from entrypoints.http.large import large
from entrypoints.http.paging import Cursor, Limit

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get("", response_model=RunPage)
async def list_runs(
    cases: Cases,
    caller: Caller,
    turn: Place,
    limit: Limit = 50,
    cursor: Cursor = None,
    pipeline: Annotated[str | None, Query(max_length=48)] = None,
    state: RunState | None = None,
) -> Any:
    """List runs, newest first; of those with large reports fewer than `limit`."""
    after = run_place_of(caller.organization, cursor)
    async with turn:
        page = await cases.history.runs(caller, pipeline=pipeline, state=state, after=after, limit=limit)
        return await large(lambda: runs_body(caller.organization, page, cases.answers))


@router.get("/{run_id}", response_model=Run)
async def get_run(run_id: str, cases: Cases, caller: Caller, turn: Place) -> Any:
    """Show a run; sentences and names that tell of data are for those who may preview."""
    if (run := await cases.history.run_unless_large(caller, run_id)) is not None:
        return shown_run(run, cases.answers)
    async with turn:
        large_run = await cases.history.run(caller, run_id)
        return await large(lambda: shown_run(large_run, cases.answers))


@router.get("/{run_id}/transitions", response_model=dict[str, Any])
async def list_transitions(
    run_id: str, cases: Cases, caller: Caller, turn: Place, limit: Limit = 500, cursor: Cursor = None
) -> Any:
    """Show a run's history: the newest `limit` lines, oldest first, and with `next_cursor` those before them."""
    own, before = caller.organization, transition_place_of(caller.organization, run_id, cursor)
    async with turn:
        found = await cases.history.transitions(caller, run_id, before=before, newest=limit + 1)
        return await large(lambda: transitions_body(own, run_id, found, limit, cases.answers))


@router.get("/{run_id}/logs", response_model=dict[str, Any])
async def list_logs(
    run_id: str, cases: Cases, caller: Caller, turn: Place, limit: Limit = 500, cursor: Cursor = None
) -> Any:
    """Show a run's history together with its stored events: the newest `limit` lines, oldest first, and with
    `next_cursor` those before them.
    """
    own, before = caller.organization, log_place_of(caller.organization, run_id, cursor)
    async with turn:
        found = await cases.history.logs(caller, run_id, before=before, newest=limit + 1)
        return await large(lambda: logs_body(own, run_id, found, limit, cases.answers))


@router.post("/{run_id}/cancel", status_code=202, response_model=Run)
async def cancel_run(run_id: str, cases: Cases, caller: Canceller) -> Any:
    """Cancel a run: at once if it was never claimed, else at its next batch; committed batches stay."""
    return run_body(await cases.controller.cancel(caller, run_id))


@router.post(
    "/{run_id}/retry",
    status_code=202,
    response_model=Run,
    openapi_extra=bodies.request_schema(bodies.RetryBody),
)
async def retry_run(
    run_id: str, request: Request, cases: Cases, caller: Starter, reader: Bodies, response: Response
) -> Any:
    """Ask for a new run with the same wishes; it completes what the failed one left unfinished."""
    wanted = await reader.json(request, bodies.RetryBody)
    run = await cases.controller.retry(caller, run_id, abandon=wanted.abandon)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run_body(run)
