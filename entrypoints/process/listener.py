"""The socket that a process listens on, and where others reach it."""

import socket

from domain.errors import UnavailableError


def bound(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Raises:
        UnavailableError: it cannot be bound (`server.port_taken`).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"The address {host}:{port} cannot be bound: {error.strerror}. Choose another with --port.",
            code="server.port_taken",
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
