"""Parses what clients have sent at a pace at which the loop goes on turning."""

import asyncio
import time
from collections import deque
from typing import Protocol

AT_ONCE = 4096
"""Bytes that are parsed in one go: all of most requests, and no more than half a millisecond of a body's smallest
chunks.
"""

_SECONDS = 0.002


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
    transport.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reasons: set[str] = set()

    def pause_reading(self, reason: str = "flow") -> None:
        """Read no more for this reason."""
        self._reasons.add(reason)
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self, reason: str = "flow") -> None:
        """Read again, unless there is another reason."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons and not self._transport.is_closing():
                self._transport.resume_reading()
