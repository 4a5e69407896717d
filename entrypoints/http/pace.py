"""Parses what clients have sent at a pace at which the loop goes on turning."""

import asyncio
import select
import socket
import time
from collections import deque
from typing import Protocol

AT_ONCE = 4096
"""Bytes that are parsed in one go: all of most requests, and no more than half a millisecond of a body's smallest
chunks.
"""

_SECONDS = 0.002
_LOOK_SECONDS = 1.0


class Parsing(Protocol):
    """Something of which something is to be parsed."""

    def parse_some(self) -> bool:
        """Parse `AT_ONCE` bytes, and say whether there are more."""


class Pace:
    """Shares a turn of the loop among connections: each parses a little, and all together for so long.

    What a byte costs depends on what it is: a body in chunks of one byte calls Python for every six bytes. A loop reads
    megabytes of a connection in one turn, so a single one kept all others waiting for seconds, and needed no key for
    it.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._most = seconds
        self._spent = 0.0
        self._behind: deque[Parsing] = deque()
        self._is_turning = False

    def parse(self, one: Parsing, *, is_first: bool = False) -> None:
        """Parse now, if there is time and nobody waits for theirs; the rest in later turns."""
        if is_first or (not self._behind and self._spent < self._most):
            self._parse(one)
        else:
            self._behind.append(one)
        self._turn()

    def _parse(self, one: Parsing) -> None:
        started = time.perf_counter()
        if one.parse_some():
            self._behind.append(one)
        self._spent += time.perf_counter() - started

    def _turn(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A turn has passed: those who are behind go on, one after the other."""
        self._is_turning, self._spent = False, 0.0
        try:
            while self._behind:
                self._parse(self._behind.popleft())
                if self._spent >= self._most:
                    break
        finally:
            if self._behind:
                self._turn()


class Reading:
    """Reads of a connection as long as there is no reason against it; stands where uvicorn's flow control has the
    transport. Who leaves while nothing is read is looked for: the end of a connection stands behind all that was sent.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reasons: set[str] = set()
        self._looking: asyncio.TimerHandle | None = None

    def pause_reading(self, reason: str = "flow") -> None:
        """Read no more for this reason."""
        self._reasons.add(reason)
        if not self._transport.is_closing():
            self._transport.pause_reading()
            if self._looking is None:
                self._look_later()

    def resume_reading(self, reason: str = "flow") -> None:
        """Read again, unless there is another reason."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                self.close()
                if not self._transport.is_closing():
                    self._transport.resume_reading()

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._transport.is_closing():
            if _has_left(self._transport.get_extra_info("socket")):
                self._transport.close()  # As the loop does for an end that it reads.
            else:
                self._look_later()


def _has_left(connection: socket.socket) -> bool:
    """Say whether the other side sends no more, also where what it has sent is not read yet."""
    poll = select.poll()
    poll.register(connection.fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
