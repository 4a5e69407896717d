"""What routes ask for: the use cases, the caller and what they may, and what reads bodies."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator

from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from entrypoints.http.body_reader import BodyReader
from entrypoints.http.callers import caller_of
from entrypoints.http.leaving import Places
from entrypoints.use_cases import UseCases


async def use_cases(request: Request) -> UseCases:
    """The use cases of this application (a plain function would cost a thread hop)."""
    found: UseCases = request.app.state.use_cases
    return found


async def principal(request: Request) -> AsyncIterator[Principal]:
    """Who is calling, from exactly one `Authorization: Bearer` header; the request is in the scope of their
    organization from then on.
    """
    found: UseCases = request.app.state.use_cases
    caller = await caller_of(request.scope["state"], request.headers, found)
    request.state.caller = caller
    async with found.scopes.create_scope(caller.scope):
        yield caller


_NEEDED: dict[Callable[..., Any] | None, Action] = {}


def caller_who(may: Action) -> Any:
    """The caller, if the table of permissions lets them act: asked before anything of the request is looked at."""

    async def permitted(caller: Annotated[Principal, Depends(principal)]) -> Principal:
        require(caller, may)
        return caller

    _NEEDED[permitted] = may
    return Depends(permitted)


async def known_query(request: Request, caller: Annotated[Principal, Depends(principal)]) -> None:
    """Refuse a filter that the route does not have, or one that is given twice: passed over, it would show
    other rows.
    """
    route = request.scope["route"].dependant
    for dependency in route.dependencies:  # Those of a router come before those of its routes.
        if dependency.call in _NEEDED:
            require(caller, _NEEDED[dependency.call])
    known = {field.alias for field in route.query_params}
    given = Counter(name for name, _ in request.query_params.multi_items())
    wrong = [(name, "is not a parameter of this path") for name in given if name not in known]
    wrong += [(name, "is given more than once") for name, count in given.items() if name in known and count > 1]
    if wrong:
        raise RequestValidationError([{"loc": ("query", name[:100]), "msg": words} for name, words in wrong[:20]])


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("is written in digits")
    return value


Digits = BeforeValidator(_digits)
"""Of a number in a query: digits alone, where Python would read `1_0` too."""


async def bodies_of(request: Request) -> BodyReader:
    """What reads the bodies of this application."""
    found: BodyReader = request.app.state.bodies
    return found


async def place(
    request: Request, caller: Annotated[Principal, Depends(principal)]
) -> AbstractAsyncContextManager[None]:
    """The turn of a request that reads a page, to be entered by its route."""
    places: Places = request.app.state.places
    return places.one(request, caller)


async def place_in_stores(
    request: Request, caller: Annotated[Principal, Depends(principal)]
) -> AbstractAsyncContextManager[None]:
    """The same for a page that a store is asked for."""
    places: Places = request.app.state.places_in_stores
    return places.one(request, caller)


Cases = Annotated[UseCases, Depends(use_cases)]
Caller = Annotated[Principal, Depends(principal)]
"""Every /v1 route asks for the caller; whether they may is the use case's to say."""
Bodies = Annotated[BodyReader, Depends(bodies_of)]
Place = Annotated[AbstractAsyncContextManager[None], Depends(place)]
PlaceInStores = Annotated[AbstractAsyncContextManager[None], Depends(place_in_stores)]
Previewer = Annotated[Principal, caller_who(Action.PREVIEW)]
SpecWriter = Annotated[Principal, caller_who(Action.WRITE_SPEC)]
ConnectionWriter = Annotated[Principal, caller_who(Action.WRITE_CONNECTION)]
Starter = Annotated[Principal, caller_who(Action.TRIGGER)]
Canceller = Annotated[Principal, caller_who(Action.CANCEL)]
Resetter = Annotated[Principal, caller_who(Action.RESET_STATE)]
Operator = Annotated[Principal, caller_who(Action.OPERATE)]
"""Callers of routes that do more than show what is stored: who may not act gets no further than their key."""
