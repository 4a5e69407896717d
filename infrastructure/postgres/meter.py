"""What asyncpg gathers of one answer: it has to have a message whole before it shows any of it, and nobody sees how
much came.
"""

import asyncio
from typing import Any

ROOM_BYTES = 2**20
"""Of several messages that come together, and of what comes while nothing is asked."""


class Before(asyncio.Protocol):
    """Stands before a driver's protocol and hands on what it does not look at."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def eof_received(self) -> Any:
        return self.inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class Meter(Before):
    """Breaks off when more bytes come for a driver's protocol than may."""

    def __init__(self, inner: Any, transport: Any, most: int = 0) -> None:
        super().__init__(inner)
        self._transport = transport
        self._waiting = 0
        self.begin(most)
        self.is_exceeded = False

    def begin(self, most: int) -> None:
        """Let so many bytes come from now on."""
        self._most = most + ROOM_BYTES
        self._waiting = 0

    def taken(self) -> None:
        """Begin again: all that was complete has been handed on."""
        self._waiting = 0

    def data_received(self, data: bytes) -> None:
        self._waiting += len(data)
        if self._waiting <= self._most:
            self.inner.data_received(data)
        elif not self.is_exceeded:
            self.is_exceeded = True
            self._transport.abort()
