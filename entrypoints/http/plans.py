"""Plans over HTTP: what applying documents would change."""

from typing import Any

from fastapi import APIRouter, Request

from entrypoints.answers.plans import changes_body
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Cases, Previewer

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", openapi_extra=bodies.request_schema(bodies.PlanBody))
async def plan(request: Request, cases: Cases, caller: Previewer, reader: Bodies) -> dict[str, Any]:
    """Say what applying a set of documents would change; nothing is stored, and nothing opened that is not stored."""
    documents, prune = await reader.documents(request)
    return {"changes": changes_body(await cases.planner.plan(caller, documents, prune=prune))}
