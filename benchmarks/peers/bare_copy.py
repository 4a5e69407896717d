"""Pass a query's rows into a table of the same Postgres by binary COPY, in one transaction that remembers nothing."""

import asyncio
import sys

import asyncpg

URL, QUERY, TABLE = sys.argv[1:]


async def main() -> None:
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(64)
    source, destination = await asyncpg.connect(URL), await asyncpg.connect(URL)

    async def read() -> None:
        await source.copy_from_query(QUERY, output=chunks.put, format="binary")
        await chunks.put(None)

    async def passing():  # type: ignore[no-untyped-def]
        while (chunk := await chunks.get()) is not None:
            yield chunk

    reading = asyncio.create_task(read())
    await destination.copy_to_table(TABLE, source=passing(), format="binary")
    await reading
    await source.close()
    await destination.close()


asyncio.run(main())
