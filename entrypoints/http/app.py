"""The FastAPI application: made by a factory, so that tests override providers first and then build."""

import json
from functools import cache
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.routing import Route

from entrypoints.documents.connection_models import ConnectionDocument
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.models import PipelineDocument
from entrypoints.http import bodies, connections, errors, pipelines, plans, probes, quarantine, runs, workers
from entrypoints.http.body_reader import BodyReader
from entrypoints.http.dependencies import known_query
from entrypoints.http.hosts import AllowedHosts
from entrypoints.http.leaving import Places
from entrypoints.http.middleware import RequestContext
from entrypoints.use_cases import UseCases

_PROBLEM: dict[str, Any] = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
}

_NO_SECOND_SPANS: TelemetryConfig = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip
"""Requests are measured by our middleware, which knows whose word on sampling counts; FastAPI would do it again, for
whoever has set a provider for the whole process.
"""

_READ_BY_ROUTES = (
    PipelineDocument,
    ConnectionDocument,
    bodies.TriggerBody,
    bodies.RetryBody,
    bodies.PreviewBody,
    bodies.ResetBody,
    bodies.PlanBody,
    bodies.ReplayBody,
)


def create_app(
    use_cases: UseCases,
    *,
    title: str,
    max_body_bytes: int,
    api_version: str = "v1",
    limits: DocumentLimits | None = None,
    hosts: AllowedHosts | None = None,
    is_local: bool = False,
) -> FastAPI:
    """Build the API over a set of use cases; `is_local` says that no other machine reaches it. The API page comes with
    a later version; /openapi.json is there.
    """
    app = FastAPI(
        title=title,
        version=api_version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=_NO_SECOND_SPANS,
        generate_unique_id_function=_operation_id,
    )
    app.state.use_cases, app.state.is_local = use_cases, is_local
    app.state.bodies = BodyReader(limits or DocumentLimits(), max_body_bytes)
    app.state.places = Places()
    app.state.places_in_stores = Places()  # A store that is silent keeps nobody from what the records tell.
    app.add_middleware(
        RequestContext, use_cases=use_cases, max_body_bytes=max_body_bytes, hosts=hosts or AllowedHosts()
    )
    errors.register(app)
    _tell_description(app)
    app.include_router(probes.router)
    modules = (pipelines, connections, runs, quarantine, plans, workers)
    for module in modules:
        app.include_router(
            module.router,
            dependencies=[Depends(known_query)],
            responses=dict.fromkeys((401, 403, 404, 409, 422, 503), _PROBLEM),
        )
    app.state.routes = _routes(app, probes.router, *(module.router for module in modules))
    _with_problem_schema(app)
    return app


def create_probes(use_cases: UseCases, *, is_local: bool = False) -> FastAPI:
    """Build the probes of a process that only works."""
    app = FastAPI(
        title="probes",
        version=version("headrace"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=_NO_SECOND_SPANS,
    )
    app.state.use_cases, app.state.is_local = use_cases, is_local
    app.add_middleware(RequestContext, use_cases=use_cases, max_body_bytes=1024, hosts=AllowedHosts())
    errors.register(app)
    app.include_router(probes.router)
    app.state.routes = _routes(app, probes.router)
    return app


def _routes(*routers: FastAPI | APIRouter) -> list[Route]:
    return [route for router in routers for route in router.routes if isinstance(route, Route)]


def _tell_description(app: FastAPI) -> None:
    """Answer with OpenAPI. Whoever asks needs no key, so it is written once."""

    @cache
    def written() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> Response:
        return Response(written(), media_type="application/json")


def _operation_id(route: APIRoute) -> str:
    return route.name


def _with_problem_schema(app: FastAPI) -> None:
    """Put into OpenAPI what routes do not say themselves: problems, bodies that they read themselves, and the key."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {}).update(bodies.described(bodies.ProblemBody, *_READ_BY_ROUTES))
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    if path.startswith("/v1/"):
                        operation["security"] = [{"key": []}]
                    elif path == "/metrics":
                        operation["security"] = [{}, {"key": []}]
                        operation["responses"] |= dict.fromkeys(("401", "403"), _PROBLEM)
                    statuses = (400, *((413, 415) if "requestBody" in operation else ()))
                    operation["responses"] |= {str(status): _PROBLEM for status in statuses}
                    operation["responses"] = dict(sorted(operation["responses"].items()))
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
