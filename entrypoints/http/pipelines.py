"""Pipelines over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from application.runs.launch import TriggerRun
from domain.failpoints import fail_at
from domain.runs.run import RunRequest
from entrypoints.answers.documents import Document, DocumentPage, revisions_body
from entrypoints.answers.pipelines import preview_body, state_body, status_body
from entrypoints.answers.runs import Run, run_body
from entrypoints.documents.models import PipelineDocument
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Caller, Cases, Digits, Place, Previewer, Resetter, SpecWriter, Starter
from entrypoints.http.documents import get_document, list_documents, put_document
from entrypoints.http.large import large
from entrypoints.http.leaving import while_asked
from entrypoints.http.paging import Cursor, Limit

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"])


@router.get("", response_model=DocumentPage)
async def list_pipelines(cases: Cases, caller: Caller, turn: Place, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """List pipelines by name."""
    return await list_documents(cases, caller, turn, "pipeline", cursor, limit)


@router.get("/{name}", response_model=Document)
async def get_pipeline(name: str, cases: Cases, caller: Caller, response: Response) -> Any:
    """Show a pipeline's latest revision."""
    return await get_document(cases, caller, "pipeline", name, response)


@router.put("/{name}", response_model=Document, openapi_extra=bodies.document_schema(PipelineDocument))
async def put_pipeline(
    name: str, request: Request, cases: Cases, caller: SpecWriter, reader: Bodies, response: Response
) -> Any:
    """Store a pipeline; each change makes a new revision."""
    return await put_document(cases, caller, await reader.document(request, "pipeline", name), response)


@router.delete("/{name}", status_code=204)
async def delete_pipeline(name: str, cases: Cases, caller: SpecWriter) -> None:
    """Forget a pipeline; its runs and rows stay."""
    await cases.catalog.delete(caller, "pipeline", name)


@router.get("/{name}/revisions", response_model=list[Document])
async def list_revisions(
    name: str,
    cases: Cases,
    caller: Caller,
    turn: Place,
    limit: Limit = 100,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Only those before this one."), Digits] = None,
) -> Any:
    """List a pipeline's revisions, newest first; of large documents fewer than `limit`, and `before` goes on."""
    async with turn:
        found = await cases.catalog.revisions(
            caller, "pipeline", name, before=before, limit=limit, most_characters=cases.answers.page_characters
        )
        return await large(lambda: revisions_body(found))


@router.post(
    "/{name}/trigger",
    status_code=202,
    response_model=Run,
    openapi_extra=bodies.request_schema(bodies.TriggerBody),
)
async def trigger(
    name: str, request: Request, cases: Cases, caller: Starter, reader: Bodies, response: Response
) -> Any:
    """Ask for a run; the answer is given once it is stored."""
    wanted = await reader.json(request, bodies.TriggerBody)
    command = TriggerRun(name, RunRequest(**wanted.model_dump()))
    run = await cases.launcher.launch(caller, command)
    fail_at("api.after_commit_before_response")
    response.headers["Location"] = f"/v1/runs/{run.id}"
    return run_body(run)


@router.get("/{name}/status", response_model=dict[str, Any])
async def status(name: str, cases: Cases, caller: Caller, turn: Place) -> Any:
    """Show the last run and the watermark."""
    if (found := await cases.states.status_unless_large(caller, name)) is not None:
        return status_body(found)
    async with turn:
        large_one = await cases.states.status(caller, name)
        return await large(lambda: status_body(large_one))


@router.get("/{name}/state")
async def state(name: str, cases: Cases, caller: Previewer) -> dict[str, Any]:
    """Show position and watermark at the destination, which is opened for it; needs the right to preview."""
    return state_body(name, await cases.states.state(caller, name))


@router.post("/{name}/reset", openapi_extra=bodies.request_schema(bodies.ResetBody))
async def reset(name: str, request: Request, cases: Cases, caller: Resetter, reader: Bodies) -> dict[str, Any]:
    """Forget the unfinished load and move the watermark; rows stay."""
    wanted = await reader.json(request, bodies.ResetBody)
    return state_body(name, await cases.states.reset(caller, name, wanted.to))


@router.post(
    "/{name}/preview",
    response_model=dict[str, Any],
    openapi_extra=bodies.request_schema(bodies.PreviewBody),
    description="Show the first rows after transforms and rules; writes nothing. Long values are cut, and many rows "
    "are not all shown.",
)
async def preview(name: str, request: Request, cases: Cases, caller: Previewer, reader: Bodies) -> Any:
    """Show the first rows after transforms and rules."""
    wanted = await reader.json(request, bodies.PreviewBody)
    spec = await cases.states.spec_of(caller, name)
    found = await while_asked(
        request,
        cases.previewer.preview(caller, spec, limit=wanted.limit, keep_rows=wanted.rows and wanted.limit is not None),
    )
    return await large(lambda: preview_body(found, cases.answers))
