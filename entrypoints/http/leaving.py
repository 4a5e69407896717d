"""Work that is given up as soon as nobody waits for its answer, and work that waits for its turn."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import Request
from starlette.requests import ClientDisconnect

from domain.errors import UnavailableError
from domain.identity.principal import Principal

T = TypeVar("T")
_PAGES_AT_A_TIME = 2
_PAGES_OF_ONE_CALLER = 1
_WAITING_OF_ONE_CALLER = 64
"""A request that waits keeps its connection from being given to others, of which there are not many more."""


@dataclass(eq=False)
class _Queue:
    """The pages of one caller."""

    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PAGES_OF_ONE_CALLER))
    asked: int = 0


class Places:
    """Lets so many pages be read at a time, and fewer for one caller; the others wait, and nothing is read for who has
    left.

    A page takes memory, a session of the records and time of the loop. Hundreds that are asked for at once would take
    all of each, also from runs that are written down, and callers who leave at once could ask for any number.
    """

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(_PAGES_AT_A_TIME)
        self._own: WeakValueDictionary[tuple[str, str], _Queue] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, request: Request, caller: Principal) -> AsyncIterator[None]:
        """Have one of them.

        Raises:
            ClientDisconnect: whoever asked has left.
            UnavailableError: so many of the caller's wait already (`worker.busy`).
        """
        own = self._own.setdefault((caller.organization, caller.subject), _Queue())
        if own.asked > _WAITING_OF_ONE_CALLER:
            sentence = (
                f"{_WAITING_OF_ONE_CALLER} pages that {caller.subject} asked for are waited for already: ask for "
                "fewer at a time."
            )
            raise UnavailableError(sentence, code="worker.busy")
        own.asked += 1
        try:
            # Who listens to the client is inside the turnstile no longer: one caller's pages that wait keep nobody else
            # out.
            await request.is_disconnected()
            async with own.turn:
                if await request.is_disconnected():
                    raise ClientDisconnect
                async with self._all:
                    yield
        finally:
            own.asked -= 1


async def while_asked(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Answer a request whose body has been read; a client that leaves ends the work.

    Raises:
        ClientDisconnect: it has left.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
