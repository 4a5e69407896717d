"""A running `headrace up` as an address and a key: found by its file, asked over HTTP."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domain import errors

if TYPE_CHECKING:
    from entrypoints.composition.paths import Paths

_BY_STATUS: dict[int, type[errors.PlatformError]] = {
    400: errors.InvalidInputError,
    401: errors.UnauthenticatedError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.InvalidInputError,
    503: errors.UnavailableError,
}
_BY_NAME: dict[str, type[errors.PlatformError]] = {"work_failed": errors.WorkFailedError, "busy": errors.BusyError}
"""What the server says in a header of errors whose status is that of others too."""


@dataclass(frozen=True)
class RemoteServer:
    """An address and a key, and the id that all requests of a command bear."""

    url: str
    pid: int
    key: str
    correlation_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def curl(self, call: str) -> str:
        """Write a call such as `GET /v1/runs` for a person to copy."""
        method, _, path = call.partition(" ")
        return f"curl -X {method} -H 'Authorization: Bearer <key of admin.key>' {self.url}{path}"

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send one request and return its JSON.

        Raises:
            PlatformError: what the server's problem says, or that it cannot be reached.
        """
        return self.checked(*self.answer(method, path, body))

    def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any, str]:
        """Send one request and return the status, the JSON and the name of the error.

        Raises:
            UnavailableError: it cannot be reached, or what is there does not answer as it does.
        """
        import urllib3  # Which takes its time, and most homes have no server.

        headers = {"Authorization": f"Bearer {self.key}", "X-Request-ID": self.correlation_id}
        trace = os.environ.get("TRACEPARENT", "")  # Of whoever runs the command, as a scheduler does.
        if trace.isascii() and trace.replace("-", "").isalnum():
            headers["traceparent"] = trace
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body)
        try:
            answer = urllib3.request(
                method, self.url + path, headers=headers, body=content, timeout=60.0, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise errors.UnavailableError(f"headrace up at {self.url} does not answer.", code="server.gone") from error
        try:
            found = json.loads(answer.data) if answer.data else None
        except (ValueError, RecursionError) as error:
            raise self._unreadable() from error
        return answer.status, found, answer.headers.get("Headrace-Error", "")

    def checked(self, status: int, found: Any, name: str) -> Any:
        """What was answered, unless it is a problem.

        Raises:
            PlatformError: what the problem says.
        """
        if status < 300:
            return found
        try:
            problem = problem_of(status, found or {}, name)  # No redirect is followed: the key is for this address.
        except (ValueError, TypeError, AttributeError) as error:
            raise self._unreadable() from error
        raise problem

    def _unreadable(self) -> errors.UnavailableError:
        return errors.UnavailableError(
            f"What answers at {self.url} does not answer as headrace up does.", code="server.answer"
        )


def find_server(paths: Paths) -> RemoteServer | None:
    """Find the running `headrace up` of a home; a file left by a killed one is ignored."""
    from entrypoints.process.server_file import read_server

    found = read_server(paths.server)
    if found is None:
        return None
    try:
        key = paths.admin_key.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.PermissionDeniedError(f"The key in {paths.admin_key} cannot be read.") from error
    return RemoteServer(found.url, found.pid, key)


def problem_of(status: int, found: Mapping[str, Any], name: str) -> errors.PlatformError:
    """Read a problem as the error that it was, as far as an exit code goes."""
    kind = _BY_NAME.get(name) or _BY_STATUS.get(status, errors.WorkFailedError)
    message = str(found.get("detail") or found.get("title") or f"The server answered {status}.")
    problems = [
        errors.Problem(str(item.get("loc", "")), str(item.get("code", "")), str(item.get("msg", "")))
        for item in found.get("errors", [])
    ]
    return kind(message, code=str(found.get("code", "server.error")), problems=problems)
