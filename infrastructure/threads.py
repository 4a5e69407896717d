"""One thread per stream for drivers that block, so that the event loop never waits and a connection never moves."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_INTERRUPT_EVERY_SECONDS = 1.0


class OneThread:
    """Runs every call on the same thread, in order. `interrupt` makes the driver give up what it is doing."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.interrupt: Callable[[], None] | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function. A cancelled caller interrupts the driver, then waits for it to give up: a call that
        was left alone would go on using the connection.
        """
        future = self._executor.submit(function, *args, **kwargs)
        wrapped = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(wrapped)
        except asyncio.CancelledError:
            while not wrapped.done():
                if self.interrupt is not None:
                    with contextlib.suppress(Exception):  # What cannot be interrupted is waited for.
                        await asyncio.to_thread(self.interrupt)
                await asyncio.wait([wrapped], timeout=_INTERRUPT_EVERY_SECONDS)
            if not wrapped.cancelled():
                wrapped.exception()
            raise

    async def iterate(self, items: Generator[T], *, ahead: int = 1) -> AsyncGenerator[T, None]:
        """Yield a blocking generator's items, reading up to `ahead` of them before they are asked for; close it after."""
        queue: asyncio.Queue[tuple[bool, T | None]] = asyncio.Queue(maxsize=ahead)

        def advance() -> tuple[bool, T | None]:
            for item in items:
                return True, item
            return False, None

        async def pump() -> None:
            while True:
                has_item, item = await self.call(advance)
                await queue.put((has_item, item))
                if not has_item:
                    return

        task = asyncio.create_task(pump())
        try:
            while True:
                getter = asyncio.create_task(queue.get())
                await asyncio.wait({getter, task}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done() and task.done() and queue.empty():
                    getter.cancel()
                    task.result()
                    return
                has_item, item = await getter
                if not has_item:
                    return
                yield item  # type: ignore[misc]
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
            await self.call(items.close)

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=True)
