"""How parent and child send each other a message: counted parts, so that neither reads more than was agreed."""

import socket
import struct
from collections.abc import Callable, Sequence

from infrastructure.bench.deadline import Deadline

_COUNT = struct.Struct(">I")
_LENGTH = struct.Struct(">Q")
_MOST_PARTS = 1000


class TooLongError(Exception):
    """A message with more parts or bytes than may be sent here."""


def send(to: socket.socket, parts: Sequence[bytes | bytearray | memoryview], *, until: Deadline | None = None) -> None:
    """Send a message.

    Raises:
        TimeoutError, StarvedError: it was not taken until then.
        OSError: nobody takes it any more.
    """
    views = [memoryview(part).cast("B") for part in parts]
    head = _COUNT.pack(len(views)) + b"".join(_LENGTH.pack(view.nbytes) for view in views)
    for view in (memoryview(head), *views):
        begun = 0
        while begun < view.nbytes:
            begun += _in_time(to, until, to.send, view[begun:])


def receive(source: socket.socket, *, most_bytes: int, until: Deadline | None = None) -> list[bytearray]:
    """Wait for a message.

    Raises:
        TooLongError: it is longer than `most_bytes`; nothing of it was read.
        TimeoutError, StarvedError: it has not come until then.
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


def _exactly(source: socket.socket, count: int, until: Deadline | None) -> bytearray:
    found = bytearray(count)
    view, begun = memoryview(found), 0
    while begun < count:
        taken = _in_time(source, until, source.recv_into, view[begun:])
        if not taken:
            raise EOFError
        begun += taken
    return found


def _in_time(
    connection: socket.socket, until: Deadline | None, move: Callable[[memoryview], int], view: memoryview
) -> int:
    while True:
        connection.settimeout(None if until is None else until.left())
        try:
            return move(view)
        except TimeoutError:
            if until is None:
                raise
