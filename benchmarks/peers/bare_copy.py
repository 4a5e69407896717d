"""Copy a table by ranges of its key, as a pass-through run does, in one transaction that remembers nothing; prints
seconds.

The same reads and the same COPY of the same number of rows, without fence, checkpoint, check of types and commit for
each range: what is left of a run's time is what exactly-once costs.
"""

import asyncio
import sys
import time

import asyncpg

URL, SOURCE, COLUMNS, TABLE, ROWS = sys.argv[1:]
BORDER = f"select id from {SOURCE} where id > $1 order by id offset {int(ROWS) - 1} limit 1"
LAST = f"select max(id) from {SOURCE} where id > $1"


async def main() -> None:
    source, destination = await asyncpg.connect(URL), await asyncpg.connect(URL)
    started = time.perf_counter()
    ranges: asyncio.Queue[list[bytes] | None] = asyncio.Queue(2)

    async def read() -> None:
        await source.execute("begin isolation level repeatable read read only")
        place = 0
        while (border := await source.fetchval(BORDER, place) or await source.fetchval(LAST, place)) is not None:
            chunks: list[bytes] = []

            async def gather(chunk: bytes, chunks: list[bytes] = chunks) -> None:
                chunks.append(chunk)

            query = f"select {COLUMNS} from {SOURCE} where id > {place} and id <= {border}"
            await source.copy_from_query(query, output=gather, format="binary")
            await ranges.put(chunks)
            place = border
        await ranges.put(None)

    async def passing(chunks: list[bytes]):  # type: ignore[no-untyped-def]
        for chunk in chunks:
            yield chunk

    reading = asyncio.create_task(read())
    async with destination.transaction():
        while (chunks := await ranges.get()) is not None:
            await destination.copy_to_table(TABLE, source=passing(chunks), format="binary")
    await reading
    print(time.perf_counter() - started)
    await source.close()
    await destination.close()


asyncio.run(main())
