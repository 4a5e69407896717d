"""Lets the stages of a stream overlap: each runs ahead of the next by a bounded number of batches."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

from domain.letting_go import ended

T = TypeVar("T")


async def ahead(
    items: AsyncGenerator[T, None], *, size: int = 1, is_large: Callable[[T], bool] = lambda _: False
) -> AsyncGenerator[T, None]:
    """Yield the items of a generator, of which up to `size` wait while the consumer is busy, and none behind a large
    one; close it after.

    The queue is the back-pressure: a stage that is faster than the next one waits, and memory stays bounded.
    """
    waiting: asyncio.Queue[tuple[T] | None] = asyncio.Queue(maxsize=size)

    async def pump() -> None:
        async with aclosing(items):
            async for item in items:
                await waiting.put((item,))
                if is_large(item):
                    del item
                    await waiting.join()
        await waiting.put(None)

    task = asyncio.create_task(pump())
    try:
        while True:
            getter = asyncio.create_task(waiting.get())
            try:
                await asyncio.wait({getter, task}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done() and task.done() and waiting.empty():
                    task.result()  # It ended by an error, else its last item would be waiting.
                found = await getter
            finally:
                getter.cancel()
            if found is None:
                return
            yield found[0]
            del found
            waiting.task_done()
    finally:
        await ended(task)
        while not waiting.empty():
            waiting.get_nowait()
