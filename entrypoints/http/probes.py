"""Liveness, readiness, version: the routes without a key."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from entrypoints.answers.workers import readiness_body
from entrypoints.http.dependencies import Cases

router = APIRouter(tags=["probes"])


@router.get("/health", responses={503: {"description": "Shutting down"}})
async def health(cases: Cases, response: Response) -> dict[str, str]:
    """Say that the process lives; 503 once it is shutting down. Touches no dependency."""
    if cases.life.is_draining:
        response.status_code = 503
    return {"status": cases.life.state.value}


@router.get("/ready", responses={503: {"description": "A part is not ready"}})
async def ready(cases: Cases, response: Response) -> dict[str, Any]:
    """Say whether work can be taken, naming each part's trouble."""
    readiness = await cases.health.readiness()
    if not readiness.is_ready:
        response.status_code = 503
    return readiness_body(readiness)


@router.get("/version")
async def show_version() -> dict[str, str]:
    """Say which version this is."""
    return {"version": version("headrace")}
