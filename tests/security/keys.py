"""Keys of other roles than the administrator's, and a socket that tells whether somebody dialled it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.identity.principal import DEFAULT_ORGANIZATION, Principal, Role
from domain.identity.scope import PLATFORM
from infrastructure.metadata.records import SqlRecords, sqlite_url
from infrastructure.security.api_keys import ApiKeys


def key_of(folder: Path, role: Role) -> str:
    """Make a key of a role in the records of a project's home."""
    key, prefix, digest = ApiKeys().new()

    async def add() -> None:
        records = SqlRecords(sqlite_url(folder / ".headrace/records.db"))
        await records.open()
        try:
            async with records.unit(PLATFORM) as unit:
                principal = Principal(role.value, DEFAULT_ORGANIZATION, frozenset({role}))
                await unit.identity.add_key(principal, prefix=prefix, digest=digest, expires_at=None)
                await unit.commit()
        finally:
            await records.close()

    asyncio.run(add())
    return key


class Canary:
    """A port of this machine; `dialled` counts who connected. Each is hung up on at once."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.dialled = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.dialled += 1
            connection.close()


@contextmanager
def canary() -> Iterator[Canary]:
    listening = Canary()
    try:
        yield listening
    finally:
        listening.close()
