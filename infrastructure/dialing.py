"""Resolves the host of a connection once and says which addresses to dial, so that no second answer can differ."""

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from domain.pipelines.dialing import DialRules, Place, literal, plain, records_forbidden

Resolver = Callable[[str, int], Sequence[str]]
"""Finds the addresses of a host; blocking. An unknown host is a `socket.gaierror`."""

# Each may take the whole time of connecting, and whoever answers for a name chooses how many there are.
_MAX_ADDRESSES = 8


def resolved(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True)
class Dialer:
    """Says which addresses of a place may be dialed."""

    rules: DialRules
    resolve: Resolver = resolved

    def addresses(self, place: Place, *, seconds: float) -> tuple[str, ...]:
        """Resolve a place once and keep what may be dialed; blocking, and no longer than it may take.

        Raises:
            InvalidInputError: nothing of it may be (`connection.host_forbidden`).
            OSError: there is no such host, or no answer in time.
        """
        found = self._found(place.host, place.port, seconds)
        kept = self.rules.permitted(found)
        if self.rules.may_be_records(place) and self.rules.records is not None:
            with suppress(OSError):  # Records that cannot be found hold nothing for anybody.
                own = self._found(self.rules.records.host, place.port, seconds)
                if {_identity(address) for address in found} & {_identity(address) for address in own}:
                    raise records_forbidden()
        return kept

    def _found(self, host: str, port: int, seconds: float) -> tuple[str, ...]:
        """Resolve in a thread that is left behind if it does not answer: no resolver can be interrupted."""
        address = literal(host)
        if address is not None:
            return (str(address),)
        answers: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self.resolve(host, port))
            except UnicodeError:
                answers.put(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
            except OSError as error:
                answers.put(error)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError("The name is not resolved in time.") from None
        if isinstance(answer, OSError):
            raise answer
        return tuple(answer[:_MAX_ADDRESSES])


class DialingLoop:
    """An event loop for a driver that connects by the name of a host: what it dials are the addresses given here.

    The driver goes on knowing the host by its name, so that TLS asks for that name and checks it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, addresses: Sequence[str]) -> None:
        self._loop = loop
        self._addresses = tuple(addresses)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, _host: str, port: int, **options: Any) -> Any:
        """Connect to the first of the addresses that answers."""
        last: OSError | None = None
        for address in self._addresses:
            try:
                return await self._loop.create_connection(factory, address, port, **options)
            except OSError as error:
                last = error
        raise last or OSError("There is no address to dial.")


def _identity(address: str) -> str:
    """The same text for the addresses of one machine that can be told to be."""
    found = plain(ip_address(address.partition("%")[0]))
    return "loopback" if found.is_loopback else str(found)
