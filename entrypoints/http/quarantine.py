"""Refused rows over HTTP."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response

from domain.pipelines.quarantine import RefusedState
from entrypoints.http import bodies
from entrypoints.http.dependencies import Caller, Cases, json_body
from entrypoints.http.pipelines import Cursor, Limit
from entrypoints.rendering import refused_body, run_body

router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])

_CURSOR = re.compile(r"([0-9a-f-]{36})~([A-Za-z0-9_-]{1,20})~([0-9]{1,18})~([0-9]{1,18})")


@router.get("", response_model=bodies.RefusedPage)
async def list_refused(
    cases: Cases,
    caller: Caller,
    pipeline: Annotated[str, Query(max_length=100)],
    limit: Limit = 50,
    cursor: Cursor = None,
    state: RefusedState | None = None,
    run: Annotated[str | None, Query(max_length=36)] = None,
) -> Any:
    """List a pipeline's refused rows, oldest first."""
    after = _CURSOR.fullmatch(cursor) if cursor is not None else None
    if cursor is not None and after is None:
        raise HTTPException(400, "The cursor is not one of ours.")
    place = after.groups() if after else None
    page = await cases.quarantine.page(caller, pipeline, state=state, run=run, after=place, limit=limit)
    return {
        "items": [refused_body(row) for row in page.rows],
        "next_cursor": "~".join(page.next_place) if page.next_place else None,
    }


@router.post(
    "/replay",
    status_code=202,
    response_model=bodies.Run,
    openapi_extra=bodies.request_schema(bodies.ReplayBody),
)
async def replay(request: Request, cases: Cases, caller: Caller, response: Response) -> Any:
    """Ask for a run that takes a pipeline's open refused rows through its transforms and rules once more."""
    wanted = bodies.checked(bodies.ReplayBody, await json_body(request))
    run = await cases.quarantine.replay(caller, wanted.pipeline, run=wanted.run)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run_body(run)
