"""One connection of the kind by which rows pass undecoded, for a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.links import LinkPool


@asynccontextmanager
async def connected(address: PostgresAddress, name: str) -> AsyncIterator[Any]:
    pool = LinkPool(address)
    try:
        async with pool.link(name) as connection:
            yield connection
    finally:
        await pool.close()
