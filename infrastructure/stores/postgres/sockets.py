"""The sockets that libpq keeps to itself: each is found by an option that no other has, and the kernel tells what came
in.
"""

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


def peers(marks: Collection[int]) -> list[Peer]:
    """The sockets of this process that have one of the marks; none on systems that cannot tell. They are to
    be closed.
    """
    found = dict[int, Peer]()
    with suppress(FileNotFoundError):
        for path in _OPEN.iterdir():
            mark = _mark_of(number := int(path.name))
            if mark in marks and (held := _held(number, mark)) is not None:
                peer = Peer(mark, held)
                if (
                    found.setdefault(peer.number, peer) is not peer
                ):  # A hold of ours, where the folder was open when it was listed.
                    peer.close()
    return list(found.values())


def _mark_of(number: int) -> int:
    """The mark of an open file; 0 if it is no socket of TCP."""
    looked_at = None
    try:
        looked_at = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=number)
        return looked_at.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    except OSError:
        return 0
    finally:
        if looked_at is not None:
            looked_at.detach()  # It is not ours to close.


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
