"""Connections that a server has not accepted any more: each hears why, in a time that no client can make longer."""

import contextlib
import selectors
import socket

from entrypoints.composition.clock import CLOCK

_SECONDS = 1.0
_MOST = 2048  # As many as may wait; those that come meanwhile are reset when the socket is closed.
_GOING_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: "
    b"application/problem+json\r\n"
    b"Content-Length: 123\r\n\r\n"
    b'{"type":"urn:headrace:server.stopping","title":"server stopping","status":503,"code":"server.stopping",'
    b'"detail":"stopping"}'
)


def refuse_waiting(listener: socket.socket) -> None:
    """Answer connections that wait to be accepted, as closing the socket would reset them; blocking, for a second at
    most.
    """
    ends = CLOCK.monotonic() + _SECONDS
    listener.setblocking(False)
    with listener, contextlib.ExitStack() as opened, selectors.DefaultSelector() as selector:
        left = set[socket.socket]()
        for _ in range(_MOST):
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            opened.enter_context(connection)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, _GOING_AWAY)
            left.add(connection)
        while left and (seconds := ends - CLOCK.monotonic()) > 0:
            for key, _ in selector.select(seconds):
                heard = key.fileobj
                assert isinstance(heard, socket.socket)
                if _goes_on(heard, key.data):
                    selector.modify(heard, selectors.EVENT_READ, b"")
                else:
                    selector.unregister(heard)
                    left.discard(heard)


def _goes_on(connection: socket.socket, answer: bytes) -> bool:
    """Answer once something was said, and read on: what is unread when it closes would take the answer with it."""
    try:
        is_open = bool(connection.recv(65_536))
        if is_open and answer:
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return is_open
