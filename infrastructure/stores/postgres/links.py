"""Connections of one Postgres store for rows that pass undecoded, asyncpg on the loop; kept for a while after use."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from domain.errors import MissingExtraError, StoreUnavailableError
from infrastructure.clock import monotonic
from infrastructure.dialing import DialingLoop
from infrastructure.postgres.settings import pinned
from infrastructure.postgres.sign_in import signed_in
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.errors import translate
from infrastructure.stores.postgres.meter import Metered
from infrastructure.threads import OneThread

_CLOSE_SECONDS = 5.0
_MAX_IDLE = 4
_KEPT_SECONDS = 30.0
# What a connection is named that nobody has taken.
_IDLE_NAME = "headrace"
_ALIVE = (
    (socket.TCP_KEEPIDLE, 15),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 45_000),
)


@contextmanager
def translated(*, writes: bool = False) -> Iterator[None]:
    """Turn asyncpg's errors into ours."""
    import asyncpg

    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise translate(error, writes=writes) from error


@dataclass
class _Link:
    connection: Metered
    connected_at: float
    ending: asyncio.TimerHandle | None = None

    @property
    def seconds_left(self) -> float:
        """How long it may still be kept."""
        return self.connected_at + _KEPT_SECONDS - monotonic()


class LinkPool:
    """Lends connections under a name, with everything pinned. One that was left by an error is never used again."""

    def __init__(self, address: PostgresAddress) -> None:
        self._address = address
        self._idle: list[_Link] = []
        self._generation = 0

    @asynccontextmanager
    async def link(self, name: str) -> AsyncIterator[Any]:
        """Lend a connection; it is clean, and in no transaction.

        Raises:
            MissingExtraError: the driver is not installed.
            StoreUnavailableError: the server cannot be reached.
            InvalidInputError: the host may not be dialed (`connection.host_forbidden`).
        """
        link, generation = await self._taken(name), self._generation
        try:
            with translated():
                yield link.connection
        except BaseException:
            link.connection.terminate()  # Nothing may be asked of it any more: a silent peer would never answer.
            raise
        await self._returned(link, is_kept=generation == self._generation)

    async def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        self._generation += 1
        while self._idle:
            await _closed(self._popped())

    async def _taken(self, name: str) -> _Link:
        while self._idle:
            link = self._popped()
            try:
                await self._named(link.connection, name)
                return link
            except BaseException as error:
                link.connection.terminate()
                if not isinstance(error, Exception):
                    raise
                while self._idle:  # It broke while it was idle, and so did the others; each might take as long to tell.
                    self._popped().connection.terminate()
        link = _Link(await _connected(self._address), monotonic())
        try:
            await self._named(link.connection, name)
        except BaseException:
            link.connection.terminate()
            raise
        return link

    async def _named(self, connection: Metered, name: str) -> None:
        """Take a session name, by which a take-over finds the sessions of its predecessors, and set what is pinned."""
        literal = name.replace("'", "''")
        set_name = f"SELECT pg_catalog.set_config('application_name', '{literal}', false), {pinned()}"
        try:
            async with asyncio.timeout(self._address.prompt_seconds):
                with translated():
                    await connection.execute(set_name)
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"{self._address.place} gave no answer within {self._address.prompt_seconds:g} s; the connection was "
                "ended."
            ) from error

    def _popped(self) -> _Link:
        link = self._idle.pop()
        if link.ending is not None:
            link.ending.cancel()
        return link

    async def _returned(self, link: _Link, *, is_kept: bool) -> None:
        if not is_kept or len(self._idle) >= _MAX_IDLE or link.seconds_left <= 0:
            await _closed(link)
            return
        generation = self._generation
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if link.connection.is_in_transaction():
                    await link.connection.execute("ROLLBACK")
                await link.connection.execute("DISCARD ALL")
                await link.connection.reload_schema_state()  # The driver's statements are gone with the rest.
        except Exception:  # noqa: BLE001 - what cannot be cleaned is not kept, whatever is the matter with it
            link.connection.terminate()
            return
        except BaseException:
            link.connection.terminate()
            raise
        if generation != self._generation or len(self._idle) >= _MAX_IDLE:
            await _closed(link)
            return
        link.ending = asyncio.get_running_loop().call_later(max(0.0, link.seconds_left), self._end, link)
        self._idle.append(link)

    def _end(self, link: _Link) -> None:
        self._idle.remove(link)
        link.connection.terminate()


async def _closed(link: _Link) -> None:
    try:
        await asyncio.wait_for(link.connection.close(), _CLOSE_SECONDS)
    except Exception:  # noqa: BLE001 - a broken connection cannot be closed any better
        link.connection.terminate()


async def _connected(address: PostgresAddress) -> Metered:
    try:
        import asyncpg
    except ModuleNotFoundError as error:
        raise MissingExtraError("postgres", "A Postgres connection") from error
    try:
        where = await _resolved(address)  # The time of connecting is the driver's own, after that.
        connection = await signed_in(
            where.sign_in,
            timeout=address.connect_timeout_seconds,
            application_name=_IDLE_NAME,
            loop=DialingLoop(asyncio.get_running_loop(), where.dialed) if where.dialed else None,
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
        raise address.not_connected(error) from error
    peer = connection._transport.get_extra_info("socket")  # asyncpg has no door to its socket.
    if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
    return Metered(connection, address.place)


async def _resolved(address: PostgresAddress) -> PostgresAddress:
    """Find the host off the loop, in a thread that keeps no process from its end."""
    if address.dialer is None:
        return address
    thread = OneThread("resolve")
    try:
        return await thread.call(address.resolved)
    finally:
        thread.close()
