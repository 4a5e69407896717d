"""Lets requests in: one a turn of the loop, so many at a time, and none that has waited for too long."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from entrypoints.http.asking import is_probe

App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
"""An application as ASGI has it: scope, receive, send."""

IS_BUSY = "is_busy"
"""In the state of a request: it has waited for long enough and is only to be told so."""


class Turnstile:
    """Stands before an application; probes pass by it.

    What a request does before it first waits is done in one go, and hundreds that begin in one turn of the loop keep
    all else waiting for it. Hundreds that are inside have their rows in memory together, which the collector of garbage
    then visits in one go, and wait for the same few connections of the records. A request is inside until it has an
    answer, or asks for its body: who is slow to send or to take holds no place, and work on bodies has bounds of its
    own.
    """

    def __init__(self, app: App, *, inside: int, wait_seconds: float) -> None:
        self._app = app
        self._places = inside
        self._wait_seconds = wait_seconds
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_turning = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http" or is_probe(scope):
            await self._app(scope, receive, send)
            return
        if not await self._entered():
            scope.setdefault("state", {})[IS_BUSY] = True
            await self._app(scope, receive, send)
            return
        is_inside = True

        def leave() -> None:
            nonlocal is_inside
            if is_inside:
                is_inside = False
                self._places += 1
                self._turn()

        async def received() -> Any:
            leave()
            return await receive()

        async def sent(message: Any) -> None:
            leave()
            await send(message)

        try:
            await self._app(scope, received, sent)
        finally:
            leave()

    async def _entered(self) -> bool:
        """Wait for a place and a turn, behind those who came before; False if none came in time, or before the server
        ends.
        """
        if not self._is_turning and self._places:
            self._places -= 1
            self._turn()
            return True
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await mine
        except TimeoutError:
            if mine.cancelled():
                return False
        except asyncio.CancelledError:
            if not mine.cancelled():  # It had come, and nobody makes use of it.
                self._places += 1
                self._turn()
            return False
        return True

    def _turn(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A turn has passed: the next may enter."""
        self._is_turning = False
        while self._waiting and self._places:
            first = self._waiting.popleft()
            if not first.done():
                self._places -= 1
                first.set_result(None)
                self._turn()
                return
