"""Who is calling, found out once a request: by whoever needs to know it first."""

from typing import Any

from starlette.datastructures import Headers

from domain.errors import PlatformError, UnauthenticatedError
from domain.identity.principal import Principal
from entrypoints.use_cases import UseCases

_FOUND = "caller_found"


async def caller_of(state: dict[str, Any], headers: Headers, use_cases: UseCases) -> Principal:
    """Find it out from exactly one `Authorization: Bearer` header; `state` is the request's own.

    Raises:
        UnauthenticatedError: there is no such header, or its key is not valid.
    """
    if _FOUND not in state:
        try:
            state[_FOUND] = await _found(headers, use_cases)
        except PlatformError as error:
            state[_FOUND] = error
    found: Principal | PlatformError = state[_FOUND]
    if isinstance(found, PlatformError):
        raise found
    return found


async def _found(headers: Headers, use_cases: UseCases) -> Principal:
    given = headers.getlist("authorization")
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise UnauthenticatedError("Send a valid key: Authorization: Bearer <key>.")
    return await use_cases.authenticator.principal_of(key)
