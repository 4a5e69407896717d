"""How parent and child send each other a message: counted parts, so that neither reads more than was agreed."""

import socket
import struct
import time
from collections.abc import Sequence

_COUNT = struct.Struct(">I")
_LENGTH = struct.Struct(">Q")
_MOST_PARTS = 1000


class TooLongError(Exception):
    """A message with more parts or bytes than may be sent here."""


def send(to: socket.socket, parts: Sequence[bytes | bytearray | memoryview], *, until: float | None = None) -> None:
    """Send a message.

    Raises:
        TimeoutError: it was not taken until then, by the monotonic clock.
        OSError: nobody takes it any more.
    """
    views = [memoryview(part).cast("B") for part in parts]
    head = _COUNT.pack(len(views)) + b"".join(_LENGTH.pack(view.nbytes) for view in views)
    for view in (memoryview(head), *views):
        _wait_until(to, until)
        to.sendall(view)


def receive(source: socket.socket, *, most_bytes: int, until: float | None = None) -> list[bytearray]:
    """Wait for a message.

    Raises:
        TooLongError: it is longer than `most_bytes`; nothing of it was read.
        TimeoutError: it has not come until then.
        EOFError, OSError: nobody sends any more.
    """
    (count,) = _COUNT.unpack(_exactly(source, _COUNT.size, until))
    if not 0 < count <= _MOST_PARTS:
        raise TooLongError
    head = _exactly(source, _LENGTH.size * count, until)
    lengths = [_LENGTH.unpack_from(head, _LENGTH.size * number)[0] for number in range(count)]
    if sum(lengths) > most_bytes:
        raise TooLongError
    return [_exactly(source, length, until) for length in lengths]


def _exactly(source: socket.socket, count: int, until: float | None) -> bytearray:
    found = bytearray(count)
    view, begun = memoryview(found), 0
    while begun < count:
        _wait_until(source, until)
        taken = source.recv_into(view[begun:])
        if not taken:
            raise EOFError
        begun += taken
    return found


def _wait_until(connection: socket.socket, until: float | None) -> None:
    if until is None:
        connection.settimeout(None)
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
