"""Request ids, one canonical line per request, and refusals that need no route."""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request

from domain.errors import PlatformError
from domain.identity.principal import Principal
from domain.ports.telemetry import ISpan, SpanKind
from entrypoints.http.callers import caller_of
from entrypoints.http.errors import problem, shown
from entrypoints.http.hosts import PROBES, AllowedHosts
from entrypoints.http.turnstile import IS_BUSY
from entrypoints.log import bound, log
from entrypoints.use_cases import UseCases

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_STOPPING = (503, "server.stopping", "The server is stopping, and this request took longer than it waits.")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NUL = re.compile(rb"\x00|%00")


class RequestContext:
    """Gives every request an id, puts it into log lines and the answer, and logs the request once."""

    def __init__(self, app: App, *, use_cases: UseCases, max_body_bytes: int, hosts: AllowedHosts) -> None:
        self._app = app
        self._use_cases = use_cases
        self._max_body_bytes = max_body_bytes
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given_headers = Headers(raw=scope["headers"])
        given = [given_headers.get(name, "") for name in ("x-request-id", "x-correlation-id")]
        request_id = next(filter(_REQUEST_ID.fullmatch, given), None) or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        refusal, is_trusted = await self._admitted(scope, given_headers)
        status, is_answered = 500, False

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status, is_answered = message["status"], True
                self._add_headers(MutableHeaders(raw=message["headers"]), request_id, own_trace)
            await send(message)

        trace = given_headers.get("traceparent")
        with self._span(scope, trace, is_trusted=is_trusted) as measured, bound(correlation_id=request_id):
            own_trace = self._use_cases.telemetry.current_trace() if measured is not None else None
            try:
                app = self._app if refusal is None else problem(Request(scope), *refusal, headers=_later(refusal[0]))
                await app(scope, self._within_limit(receive, given_headers), send_with_id)
            except asyncio.CancelledError:
                if not self._use_cases.life.is_draining:
                    raise
                # A server that ends has waited for long enough, for a body or for what the request does.
                if not is_answered:
                    await problem(Request(scope), *_STOPPING, headers=_later(503))(scope, receive, send_with_id)
            finally:
                if measured is not None:
                    _tell(measured, scope, status, request_id)
                seconds = time.perf_counter() - started
                self._count(scope, status, seconds)
                _log(scope, status, seconds)

    def _span(
        self, scope: Scope, trace: str | None, *, is_trusted: bool
    ) -> AbstractContextManager[ISpan] | nullcontext[None]:
        """A trace of a probe would say nothing, every few seconds."""
        if _is_probe(scope["path"]):
            return nullcontext()
        return self._use_cases.telemetry.span(_method(scope), trace=trace, kind=SpanKind.SERVER, is_trusted=is_trusted)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        labels = {"route": getattr(scope.get("route"), "path", "none"), "method": _method(scope)}
        telemetry = self._use_cases.telemetry
        telemetry.count("http.requests", 1, {**labels, "status": f"{status // 100}xx"})
        telemetry.observe("http.request.duration", seconds, labels)

    async def _admitted(self, scope: Scope, headers: Headers) -> tuple[tuple[int, str, str] | None, bool]:
        """What is wrong with a request whatever it asks for, and whether its caller may say that its trace is kept:
        a stranger would have all of theirs kept. Of a probe there is none.
        """
        refusal = self._refusal(scope, headers)
        asks = "traceparent" in headers and "authorization" in headers and self._use_cases.telemetry.is_exporting
        if refusal is not None or not asks or _is_probe(scope["path"]):
            return refusal, False
        try:
            with bound(correlation_id=scope["state"]["request_id"]):
                await caller_of(scope["state"], headers, self._use_cases)
        except PlatformError:  # Told by whoever needs the caller.
            return None, False
        except asyncio.CancelledError:
            if not self._use_cases.life.is_draining:
                raise
            return _STOPPING, False
        return None, True

    def _add_headers(self, headers: MutableHeaders, request_id: str, trace: str | None) -> None:
        headers["X-Request-ID"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        if trace is not None:
            headers["traceparent"] = trace
        if self._use_cases.life.is_draining:
            # Whoever keeps the connection learns that the next request belongs elsewhere, before it is cut.
            headers["Connection"] = "close"

    def _within_limit(self, receive: Receive, headers: Headers) -> Receive:
        # As long as a head may be, and all zeros, it is still a number of HTTP's; Python reads none of so many digits.
        length = headers.get("content-length", "").lstrip("0")
        announced, received = int(length) if length.isdecimal() else 0, 0

        async def receive_within_limit() -> MutableMapping[str, Any]:
            nonlocal received
            if announced > self._max_body_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return receive_within_limit

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """What is wrong with a request whatever it asks for: status, code and sentence."""
        if scope["state"].get(IS_BUSY):
            return 503, "server.busy", "Too many requests are being worked on: try again in a moment."
        if any(ord(character) < 32 or ord(character) == 127 for character in scope["path"]):
            return 400, "request.malformed", "The path holds a control character."
        if _NUL.search(scope["query_string"]):
            return 400, "request.malformed", "The query holds NUL."
        if _is_probe(scope["path"]):  # Asked by a kubelet, by the address of the pod.
            return None
        given = headers.getlist("host")
        if len(given) != 1 or not self._hosts.takes(given[0]):
            return (
                400,
                "request.host",
                "The header Host names another server; HEADRACE_HTTP__ALLOWED_HOSTS lists the names of this one.",
            )
        return None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"A body has at most {self._max_body_bytes:,} bytes (HEADRACE_HTTP__MAX_BODY_BYTES).")


def _tell(span: ISpan, scope: Scope, status: int, request_id: str) -> None:
    """Say of a span what the request was, by its route: paths hold what callers write."""
    method, route = _method(scope), getattr(scope.get("route"), "path", None)
    if route is not None:
        span.rename(f"{method} {route}")
        span.set({"http.route": route})
    span.set({"http.request.method": method, "http.response.status_code": status, "headrace.request_id": request_id})
    if status >= 500:
        span.fail(f"http.{status}", "The request was not answered as it should have been.")


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "HTTP"


def _log(scope: Scope, status: int, seconds: float) -> None:
    line = log.info if status >= 500 or not _is_probe(scope["path"]) else log.debug
    caller: Principal | None = scope["state"].get("caller")
    line(
        "http.request",
        method=scope["method"],
        path=shown(scope["path"]),
        status=status,
        duration_seconds=round(seconds, 4),
        **({"organization_id": caller.organization} if caller is not None else {}),
    )


def _later(status: int) -> dict[str, str]:
    return {"Retry-After": "5"} if status == 503 else {}


def _is_probe(path: str) -> bool:
    return path in PROBES
