"""Connections of asyncpg on which no answer has more bytes than it may, nor anything that comes unasked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infrastructure.postgres.meter import Meter
from infrastructure.postgres.sign_in import innermost
from infrastructure.stores.postgres.watching import too_much

_ANSWER_BYTES = (
    16 * 2**20
)  # Of descriptions, keys and checkpoints; rows come by COPY, which has a meter's limit of its own.


class Metered:
    """A connection of asyncpg; what it is asked here has a bounded answer, all else is the driver's."""

    def __init__(self, connection: Any, place: str) -> None:
        self._driven, self._place = connection, place
        transport = innermost(connection._transport)  # asyncpg has no door to it.
        self.meter = Meter(connection._protocol, transport)
        transport.set_protocol(self.meter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driven, name)

    async def execute(self, *given: Any, **options: Any) -> Any:
        return await self._asked(self._driven.execute, *given, **options)

    async def fetch(self, *given: Any, **options: Any) -> Any:
        return await self._asked(self._driven.fetch, *given, **options)

    async def fetchrow(self, *given: Any, **options: Any) -> Any:
        return await self._asked(self._driven.fetchrow, *given, **options)

    async def fetchval(self, *given: Any, **options: Any) -> Any:
        return await self._asked(self._driven.fetchval, *given, **options)

    async def copy_to_table(self, *given: Any, **options: Any) -> Any:
        return await self._asked(self._driven.copy_to_table, *given, **options)

    async def _asked(self, ask: Any, *given: Any, **options: Any) -> Any:
        with metered(self, _ANSWER_BYTES) as meter:
            try:
                return await ask(*given, **options)
            except Exception as error:
                if meter.is_exceeded:
                    raise too_much(self._place, _ANSWER_BYTES) from error
                raise


@contextmanager
def metered(connection: Metered, most: int) -> Iterator[Meter]:
    """Let no answer to what is asked in the block have more than about so many bytes; the connection is broken off
    then.
    """
    connection.meter.begin(most)
    try:
        yield connection.meter
    finally:
        connection.meter.begin(0)
