"""Refused rows over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from domain.loads.quarantine import RefusedState
from entrypoints.answers.quarantine import RefusedPage, refused_page_body, refused_place_of
from entrypoints.answers.runs import Run, run_body
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Cases, PlaceInStores, Previewer, Starter
from entrypoints.http.large import large
from entrypoints.http.paging import Cursor, Limit

router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])


@router.get(
    "",
    response_model=RefusedPage,
    description="List a pipeline's refused rows, oldest first; long values are cut, and of large rows there are fewer "
    "than `limit`.",
)
async def list_refused(
    cases: Cases,
    caller: Previewer,
    turn: PlaceInStores,
    pipeline: Annotated[str, Query(max_length=100)],
    limit: Limit = 50,
    cursor: Cursor = None,
    state: RefusedState | None = None,
    run: Annotated[str | None, Query(max_length=36)] = None,
) -> Any:
    """List a pipeline's refused rows, oldest first."""
    after = refused_place_of(caller.organization, pipeline, cursor)
    async with turn:
        page = await cases.quarantine.page(caller, pipeline, state=state, run=run, after=after, limit=limit)
        return await large(lambda: refused_page_body(caller.organization, pipeline, page, cases.answers))


@router.post(
    "/replay",
    status_code=202,
    response_model=Run,
    openapi_extra=bodies.request_schema(bodies.ReplayBody),
)
async def replay(request: Request, cases: Cases, caller: Starter, reader: Bodies, response: Response) -> Any:
    """Ask for a run that takes a pipeline's open refused rows through its transforms and rules once more."""
    wanted = await reader.json(request, bodies.ReplayBody)
    run = await cases.quarantine.replay(caller, wanted.pipeline, run=wanted.run)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run_body(run)
