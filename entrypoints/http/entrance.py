"""Lets connections in at a pace at which the loop goes on turning, and the probes before all others."""

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from entrypoints.http.asking import Asking, asked_first
from entrypoints.log import log

_PROBES = (Asking.LIVENESS, Asking.PROBE)
_HEAD_OF_A_PROBE = 4096
_ADMITTED_AT_ONCE = 4
_ACCEPTED_AT_ONCE = 256
MOST_WAITING = 512
"""Connections that have been accepted and have no place."""

_WAIT_SECONDS = 0.25
_LOOK_SECONDS = 0.01
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RECOVERY_SECONDS = 1.0
_LINE_SECONDS = 1.0


@dataclass(eq=False)
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
        protocol: Callable[[Asking], asyncio.Protocol],
        has_room: Callable[[Asking], bool],
        refusal: bytes,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._has_room = has_room
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._rows: dict[Asking, deque[_Waiting]] = {asking: deque() for asking in Asking}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._next: asyncio.Handle | None = None
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
        while self._count() or self._tasks:
            await asyncio.sleep(_LOOK_SECONDS)

    def _listen(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._count() >= MOST_WAITING and self._may_enter(*_PROBES):
                break  # They are in soon; to be told so, and come again at once, would only keep them from that.
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
            self._rows[_asks(waiting)].append(waiting)
            if self._count() > MOST_WAITING:
                last = next(row for row in reversed(self._rows.values()) if row)
                self._refuse(last.popleft().connection)
        self._admit()

    def _admit(self) -> None:
        """Let some in, and go on with the others in the next turn, or when there may be room."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._hear()
        longest = self._loop.time() - _WAIT_SECONDS
        for asking, row in self._rows.items():
            for _ in range(_ADMITTED_AT_ONCE):
                if row and self._has_room(asking):
                    self._serve(row.popleft().connection, asking)
            if not self._has_room(asking):
                while row and row[0].since < longest:
                    self._refuse(row.popleft().connection)
        if self._may_enter(*Asking):
            self._next = self._loop.call_soon(self._admit)
        elif self._count():
            self._next = self._loop.call_later(_LOOK_SECONDS, self._admit)

    def _count(self) -> int:
        return sum(map(len, self._rows.values()))

    def _may_enter(self, *kinds: Asking) -> bool:
        """Whether one of these waits for its turn only."""
        return any(self._rows[asking] and self._has_room(asking) for asking in kinds)

    def _hear(self) -> None:
        """Let those stand with the probes whose first bytes had not come when they were accepted."""
        silent = [waiting for waiting in self._rows[Asking.WORK] if waiting.is_silent]
        for waiting in silent:
            asking = _asks(waiting)
            if asking is not Asking.WORK:
                self._rows[Asking.WORK].remove(waiting)
                self._rows[asking].append(waiting)

    def _serve(self, connection: socket.socket, asking: Asking) -> None:
        task = self._loop.create_task(self._served(connection, self._protocol(asking)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _served(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError as error:  # Whoever it was has left.
            connection.close()
            protocol.connection_lost(error)

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


def _asks(waiting: _Waiting) -> Asking:
    try:
        first = waiting.connection.recv(_HEAD_OF_A_PROBE, socket.MSG_PEEK)
    except OSError:  # Nothing has come yet.
        return Asking.WORK
    waiting.is_silent = False
    return asked_first(first)
