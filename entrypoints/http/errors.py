"""Every failure as application/problem+json (RFC 9457): a stable code, a sentence, no input, no driver text."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from application.runs.showing import said_to
from domain import errors
from entrypoints.log import log

STATUS: dict[type[errors.PlatformError], int] = {
    errors.InvalidInputError: 422,
    errors.SpecError: 422,
    errors.QueryRefusedError: 422,
    errors.SettingsError: 422,
    errors.UnauthenticatedError: 401,
    errors.PermissionDeniedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.FencedError: 409,
    errors.BusyError: 409,
    errors.WorkFailedError: 422,
    errors.QualityRejectedError: 422,
    errors.ConversionError: 422,
    errors.SchemaMismatchError: 422,
    errors.SourceChangedError: 409,
    errors.ScopeError: 500,
    errors.UnavailableError: 503,
    errors.StoreUnavailableError: 503,
    errors.StoreRefusedError: 503,
    errors.MissingExtraError: 503,
    errors.PlatformError: 500,
}
_KINDS: dict[type[errors.PlatformError], str] = {errors.WorkFailedError: "work_failed", errors.BusyError: "busy"}
"""What shares a status with other errors, and no exit code: the command line gets it in a header."""
_STATUS_OF_CODES = {"request.cursor": 400}
"""What is wrong with the request itself, where others of its class are about what it says."""
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body.too_large",
    415: "body.type",
    400: "request.malformed",
}

_SHOWN_OF_PATH = 300
_SHOWN = 100
"""So many problems of a document are listed: who has more reads no more of them, and each takes room."""


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    problems: tuple[errors.Problem, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the one shape of every error answer."""
    body: dict[str, Any] = {
        "type": f"urn:headrace:{code}",
        "title": code.replace(".", " ").replace("_", " "),
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": getattr(request.state, "request_id", None),
        "errors": [{"loc": item.place, "code": item.code, "msg": item.message} for item in problems[:_SHOWN]],
    }
    return Response(
        json.dumps(body, ensure_ascii=True), status, dict(headers or {}), media_type="application/problem+json"
    )


def status_of(error: errors.PlatformError) -> int:
    """Find the status of the nearest class in the table, unless that of the code is another."""
    if error.code in _STATUS_OF_CODES:
        return _STATUS_OF_CODES[error.code]
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def headers_of(error: errors.PlatformError) -> dict[str, str]:
    """What an error's answer says beside its problem."""
    status = status_of(error)
    headers = {}
    for kind, name in _KINDS.items():
        if isinstance(error, kind):
            headers["Headrace-Error"] = name
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "5"
    return headers


def shown(path: str) -> str:
    """A path as the log has it: whoever has no key must not fill a disk with theirs."""
    return path if len(path) <= _SHOWN_OF_PATH else f"{path[:_SHOWN_OF_PATH]}…"


def _methods_at(request: Request) -> list[str]:
    """All methods of a path: a router tells those of the first route that it finds there."""
    path = request.scope["path"]
    return sorted({m for route in request.app.state.routes if route.path_regex.match(path) for m in route.methods})


def register(app: FastAPI) -> None:
    """Put the handlers in place."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.PlatformError)
        detail = said_to(getattr(request.state, "caller", None), error)
        return problem(
            request, status_of(error), error.code, detail, problems=error.problems, headers=headers_of(error)
        )

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = tuple(
            errors.Problem(".".join(str(part) for part in item["loc"]), "request.invalid", item["msg"])
            for item in error.errors()
        )
        return problem(request, 422, "request.invalid", "The request is not valid.", problems=found)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _CODES.get(error.status_code, "request.refused")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods_at(request))
        return problem(request, error.status_code, code, str(error.detail), headers=headers)

    async def cut_off(request: Request, _error: Exception) -> Response:
        return problem(request, 400, "request.cut_off", "The body ended before it was complete.")

    async def unexpected(request: Request, error: Exception) -> Response:
        log.error("request.failed", exc_info=error, path=shown(request.scope["path"]))
        return problem(request, 500, "internal", "Something unexpected failed; the log has the details.")

    app.add_exception_handler(errors.PlatformError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, cut_off)
    app.add_exception_handler(Exception, unexpected)
