"""Our server on a socket of a test's own, and clients that are sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from entrypoints.http.server import Server
from entrypoints.http.transport import BoundedProtocol


@asynccontextmanager
async def listening(
    app: Any, kind: type[BoundedProtocol], listener: socket.socket, **settings: Any
) -> AsyncIterator[Server]:
    """Serve an application while the block lasts."""
    server = Server(uvicorn.Config(app, lifespan="off", log_config=None, http=kind, **settings))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield server
    finally:
        server.force_exit = server.should_exit = True
        await serving


async def all_answered(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    async with asyncio.timeout(10):
        while chunk := await asyncio.get_running_loop().sock_recv(client, 65536):
            found += chunk
    return found
