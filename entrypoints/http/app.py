"""The FastAPI application: made by a factory, so that tests override providers first and then build."""

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from entrypoints.documents.limits import DocumentLimits
from entrypoints.http import bodies, connections, errors, pipelines, plans, probes, quarantine, runs, workers
from entrypoints.http.body_reader import BodyReader
from entrypoints.http.middleware import RequestContext
from entrypoints.use_cases import UseCases

_PROBLEM: dict[str, Any] = {
    "description": "A problem (RFC 9457)",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
}


def create_app(
    use_cases: UseCases, *, title: str, max_body_bytes: int, limits: DocumentLimits | None = None
) -> FastAPI:
    """Build the API over a set of use cases. The API page comes with a later version; /openapi.json is there."""
    app = FastAPI(
        title=title,
        version=version("headrace"),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.use_cases = use_cases
    app.state.bodies = BodyReader(limits or DocumentLimits(), max_body_bytes)
    app.add_middleware(RequestContext, use_cases=use_cases, max_body_bytes=max_body_bytes)
    errors.register(app)
    app.include_router(probes.router)
    for module in (pipelines, connections, runs, quarantine, plans, workers):
        app.include_router(module.router, responses=dict.fromkeys((401, 403, 404, 409, 422, 503), _PROBLEM))
    _with_problem_schema(app)
    return app


def create_probes(use_cases: UseCases) -> FastAPI:
    """Build the probes of a process that only works."""
    app = FastAPI(title="probes", version=version("headrace"), docs_url=None, redoc_url=None, openapi_url=None)
    app.state.use_cases = use_cases
    app.add_middleware(RequestContext, use_cases=use_cases, max_body_bytes=1024)
    errors.register(app)
    app.include_router(probes.router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _with_problem_schema(app: FastAPI) -> None:
    """Put the problem's schema and the key into OpenAPI."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            components = schema.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            problem = bodies.ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["ProblemBody"] = problem
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                if path.startswith("/v1/"):
                    for operation in operations.values():
                        operation["security"] = [{"key": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
