"""What a function in a child may ask of its parent in the middle of a call, such as to run a Python step."""

import pickle
import socket
import sys
from collections.abc import Callable
from typing import Any

from domain.errors import PlatformError
from infrastructure.bench.answers import error_as_value, error_of_value, written
from infrastructure.bench.frames import receive, send

_connection: list[socket.socket] = []


def through(connection: socket.socket) -> None:
    """Ask over this connection from now on."""
    _connection[:] = [connection]


def ask(*question: Any) -> Any:
    """Ask the parent, and wait for what it says.

    Raises:
        PlatformError: what the parent's own function has raised.
    """
    [connection] = _connection
    send(connection, written({"question": question}))
    answer = receive(connection, most_bytes=sys.maxsize)
    value, error = pickle.loads(answer[0], buffers=answer[1:])
    if error is not None:
        raise error_of_value(error)
    return value


def answered(answers: Callable[..., Any] | None, question: tuple[Any, ...]) -> list[bytes | memoryview]:
    """In the parent: answer a question by what the caller gave for it, with rows as they lie."""
    value, failure = None, None
    try:
        if answers is None:
            raise PlatformError("A child asks where nothing may be asked.")
        value = answers(*question)
    except PlatformError as error:
        failure = error_as_value(error)
    aside: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps((value, failure), protocol=5, buffer_callback=aside.append)
    return [pickled, *(buffer.raw() for buffer in aside)]
