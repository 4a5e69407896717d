"""Liveness, readiness, version, metrics: the routes of whatever watches the process."""

import re
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from entrypoints.answers.health import Health, Ready, liveness_body, readiness_body
from entrypoints.http.callers import caller_of
from entrypoints.http.dependencies import Cases
from entrypoints.http.hosts import AllowedHosts

router = APIRouter(tags=["probes"])

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_OF_PROXIES = re.compile(r"x-.+|forwarded|via|cdn-loop|.*(client|connecting)-ip")
_OF_CLIENTS = frozenset({"x-request-id", "x-correlation-id", "x-prometheus-scrape-timeout-seconds"})


@router.get("/health", response_model=Health, responses={503: {"description": "Shutting down", "model": Health}})
async def health(cases: Cases, response: Response) -> dict[str, Any]:
    """Say how the process is, by its own looks at what it needs; 503 once it shuts down. Touches no dependency."""
    if cases.life.is_draining:
        response.status_code = 503
    return liveness_body(cases.health.liveness())


@router.get("/ready", response_model=Ready, responses={503: {"description": "A part is not ready", "model": Ready}})
async def ready(cases: Cases, response: Response) -> dict[str, Any]:
    """Say whether work can be taken, naming each part's trouble."""
    readiness = await cases.health.readiness()
    if not readiness.is_ready:
        response.status_code = 503
    return readiness_body(readiness)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, cases: Cases) -> Response:
    """Show the numbers of this process in the text of Prometheus; from elsewhere with a key of who operates it."""
    reader = None if _is_at_home(request) else await caller_of(request.scope["state"], request.headers, cases)
    return Response(await cases.metrics.read(reader), headers={"Content-Type": _PROMETHEUS})


def _is_at_home(request: Request) -> bool:
    """Whether only this machine is listened to, and asks itself: neither for another through a proxy, nor for a page
    of a stranger under a name that leads here.
    """
    names = request.headers.getlist("host")
    is_own = len(names) == 1 and AllowedHosts().takes(names[0])
    return request.app.state.is_local and is_own and not _is_passed_on(request)


def _is_passed_on(request: Request) -> bool:
    """Whether a proxy says so: each names who asks in a header of its own, and one that names nobody and asks under
    its own name for us, as nginx does when it is told nothing else, speaks HTTP/1.0.
    """
    is_named = any(_OF_PROXIES.fullmatch(name) and name not in _OF_CLIENTS for name in request.headers)
    return is_named or request.scope["http_version"] != "1.1"


@router.get("/version")
async def show_version(request: Request) -> dict[str, str]:
    """Say which version of Headrace this is, and of its API."""
    return {"version": version("headrace"), "api_version": request.app.version}
