"""What asyncpg gathers of one message, which it has to have whole before it shows any of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infrastructure.postgres.sign_in import innermost

_ROOM_BYTES = 2**20  # Of several messages that come together.


class Meter(asyncio.Protocol):
    """Stands before a driver's protocol and breaks off when a message has more bytes than it may."""

    def __init__(self, inner: Any, transport: Any, most: int) -> None:
        self._inner = inner
        self._transport = transport
        self._most = most + _ROOM_BYTES
        self._waiting = 0
        self.is_exceeded = False

    def taken(self) -> None:
        """Begin again: all that was complete has been handed on."""
        self._waiting = 0

    def data_received(self, data: bytes) -> None:
        self._waiting += len(data)
        if self._waiting <= self._most:
            self._inner.data_received(data)
        elif not self.is_exceeded:
            self.is_exceeded = True
            self._transport.abort()

    def eof_received(self) -> Any:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


@contextmanager
def metered(connection: Any, most: int) -> Iterator[Meter]:
    """Let no message of a connection have more than about so many bytes while the block lasts; it is broken off then."""
    protocol, transport = connection._protocol, innermost(connection._transport)  # asyncpg has no door to them.
    meter = Meter(protocol, transport, most)
    transport.set_protocol(meter)
    try:
        yield meter
    finally:
        if not transport.is_closing():
            transport.set_protocol(protocol)
