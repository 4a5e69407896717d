"""uvicorn's server without signals of its own, behind an entrance of ours."""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, cast

import uvicorn

from entrypoints.http.asking import Asking
from entrypoints.http.entrance import Entrance
from entrypoints.http.transport import refusal_of_one_more


class Server(uvicorn.Server):
    """uvicorn for a process that owns its signals (X1) and its listener; `http` is a protocol of `protocol_within`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen by an entrance of ours, where uvicorn would leave the pace to the loop."""
        await super().startup(sockets=[])
        kind: Any = self.config.http_protocol_class
        state = self.server_state

        def protocol(asking: Asking) -> asyncio.Protocol:
            made = kind(asking=asking, config=self.config, server_state=state, app_state=self.lifespan.state)
            made.take_place()
            return cast(asyncio.Protocol, made)

        def has_room(asking: Asking) -> bool:
            return bool(kind.has_room(len(state.connections), asking))

        entrances: list[Any] = [
            Entrance(listener, protocol, has_room, refusal_of_one_more()) for listener in sockets or []
        ]
        self.servers = entrances
