"""Lets connections in at a pace at which the loop goes on turning, and the probes before all others."""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from entrypoints.http.hosts import PROBES
from entrypoints.log import log

_BEGINNINGS = tuple(f"GET {path} ".encode() for path in PROBES)
_HEAD_OF_A_PROBE = 4096
_ADMITTED_AT_ONCE = 4
_ACCEPTED_AT_ONCE = 256
_MOST_WAITING = 512
_WAIT_SECONDS = 0.25
_LOOK_SECONDS = 0.01
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVERY_SECONDS = 1.0
_LINE_SECONDS = 1.0


@dataclass
class _Waiting:
    """A connection without a protocol."""

    connection: socket.socket
    since: float
    is_silent: bool = True


class Entrance:
    """Takes connections from a listening socket, and lets them wait for a while where there is no room.

    A loop that is busy takes one connection a turn, or all of them: behind hundreds, a probe would wait for hundreds of
    turns, or for one turn with the work of hundreds. To accept a connection costs little, to make a protocol of it
    costs something.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[bool], asyncio.Protocol],
        has_room: Callable[[], bool],
        refusal: bytes,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._has_room = has_room
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = self._is_admitting = False
        self._refused, self._line_after = 0, 0.0
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take no more; who was taken is still served."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener)
            self._listener.close()  # Or more would be connected, whom nobody takes.

    async def wait_closed(self) -> None:
        """Wait until nobody waits here any more."""
        while self._waiting or self._tasks:
            await asyncio.sleep(_LOOK_SECONDS)

    def _listen(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # Whoever it was has left.
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_RECOVERY_SECONDS, self._listen)  # As the loops' own servers do.
                break
            connection.setblocking(False)
            waiting = _Waiting(connection, self._loop.time())
            if self._asks_a_probe(waiting):
                self._serve(connection, is_probe=True)
            else:
                self._waiting.append(waiting)
        if not self._is_admitting:
            self._admit()

    def _admit(self) -> None:
        """Let some in, and go on with the others in the next turn, or when there may be room."""
        self._let_probes_in()
        for _ in range(_ADMITTED_AT_ONCE):
            if not self._waiting or not self._has_room():
                break
            self._serve(self._waiting.popleft().connection, is_probe=False)
        is_full = bool(self._waiting) and not self._has_room()
        longest = self._loop.time() - _WAIT_SECONDS
        while len(self._waiting) > _MOST_WAITING or (is_full and self._waiting and self._waiting[0].since < longest):
            self._refuse(self._waiting.popleft().connection)
        self._is_admitting = bool(self._waiting)
        if is_full:
            self._loop.call_later(_LOOK_SECONDS, self._admit)
        elif self._waiting:
            self._loop.call_soon(self._admit)

    def _let_probes_in(self) -> None:
        """Those whose first bytes had not come when they were accepted."""
        probes = [waiting for waiting in self._waiting if waiting.is_silent and self._asks_a_probe(waiting)]
        for waiting in probes:
            self._waiting.remove(waiting)
            self._serve(waiting.connection, is_probe=True)

    def _asks_a_probe(self, waiting: _Waiting) -> bool:
        try:
            first = waiting.connection.recv(_HEAD_OF_A_PROBE, socket.MSG_PEEK)
        except OSError:  # Nothing has come yet.
            return False
        waiting.is_silent = False
        return first.startswith(_BEGINNINGS) and b"\r\n\r\n" in first  # Which is answered at once: none of these stay.

    def _serve(self, connection: socket.socket, *, is_probe: bool) -> None:
        task = self._loop.create_task(self._served(connection, is_probe))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _served(self, connection: socket.socket, is_probe: bool) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._protocol(is_probe), connection)
        except OSError:  # Whoever it was has left.
            connection.close()

    def _refuse(self, connection: socket.socket) -> None:
        """Answer without a protocol; many such answers are one line of the log."""
        with connection, suppress(OSError):
            connection.send(self._refusal)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)  # What was sent and not read would have the answer taken back.
        self._refused += 1
        if self._loop.time() >= self._line_after:
            log.info("http.refused", status=503, code="server.connections", count=self._refused)
            self._refused, self._line_after = 0, self._loop.time() + _LINE_SECONDS
