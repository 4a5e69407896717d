"""The sockets that libpq keeps to itself: each is found by an option that no other has, or by what it is connected to;
and the kernel tells what came in.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from threading import Lock

_OPEN = Path("/proc/self/fd")
# The place of `tcpi_bytes_received` in the kernel's `tcp_info`.
_RECEIVED = struct.Struct("=128xQ")
# Times after which unanswered data breaks a connection off, in milliseconds. Older kernels round them to ticks, of
# which these are whole ones.
MARKS = range(45_020, 105_001, 20)


class Peer:
    """A second hold on a socket: what its peer has sent can be asked, and it can be hung up on, while a
    driver uses it.
    """

    def __init__(self, mark: int, held: socket.socket) -> None:
        self.mark = mark
        self.number = os.fstat(held.fileno()).st_ino
        self.server = _peer_of(held)
        """Where it leads; None while it is only being connected."""
        self._held = held
        self._lock = Lock()  # A closed one's number may be somebody else's at once.

    def received(self) -> int:
        """How many bytes have come in since it was connected."""
        with self._lock, suppress(OSError):
            info = self._held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            if len(info) == _RECEIVED.size:
                return int(_RECEIVED.unpack(info)[0])
        return 0

    def hang_up(self) -> None:
        """Let whoever waits for it, in whichever thread, find that it is at its end."""
        with self._lock, suppress(OSError):  # It is at its end already.
            self._held.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let it go; the driver's own hold stays."""
        with self._lock:
            self._held.close()


def peers(marks: Collection[int], servers: Collection[object] = ()) -> list[Peer]:
    """The sockets of this process that have one of the marks, and those by which libpq asks one of these servers to
    stop: they have no mark. None on systems that cannot tell. They are to be closed.
    """
    found = dict[int, Peer]()
    with suppress(FileNotFoundError):
        for path in _OPEN.iterdir():
            mark = _mark_of(number := int(path.name))
            if mark is None or not (mark in marks or (mark == 0 and servers and _asks(number, servers))):
                continue
            if (held := _held(number, mark)) is not None:
                peer = Peer(mark, held)
                # Else it is a hold of ours, where the folder was open when it was listed.
                if found.setdefault(peer.number, peer) is not peer:
                    peer.close()
    return list(found.values())


def _mark_of(number: int) -> int | None:
    """The mark of an open file; None if it is no socket of TCP."""
    looked_at = None
    try:
        looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=number)
        return looked_at.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    except OSError:
        return None
    finally:
        if looked_at is not None:
            looked_at.detach()  # It is not ours to close.


def _asks(number: int, servers: Collection[object]) -> bool:
    """Whether a socket without a mark leads to a server and whoever has it waits inside the system for what comes: only
    libpq does so, of all that speak with Postgres here, and only to ask it to stop.
    """
    looked_at = None
    try:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK:
            return False
        looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=number)
        return _peer_of(looked_at) in servers
    except OSError:
        return False
    finally:
        if looked_at is not None:
            looked_at.detach()


def _peer_of(held: socket.socket) -> object | None:
    try:
        return tuple(held.getpeername())
    except OSError:
        return None


def _held(number: int, mark: int) -> socket.socket | None:
    try:
        mine = os.dup(number)
    except OSError:
        return None
    if _mark_of(mine) == mark:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=mine)
    # The driver has closed it meanwhile. What has its number now may be a file whose locks would go with any hold on it
    # that is closed.
    with suppress(OSError):
        socket.socket(fileno=mine).close()
    return None
