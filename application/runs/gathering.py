"""One transaction for all who ask at the same time, so that a busy process pays for a commit once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathered(Generic[Item, Result]):
    """Hands what was asked while it was busy to `work` in one go; results come back in the order of the items."""

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, at_most: int = 64) -> None:
        self._work = work
        self._at_most = at_most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Result:
        """Have one item done, alone or with others."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
            try:
                results = await self._work([item for item, _ in taken])
            except Exception as error:  # noqa: BLE001 - handed to everybody who asked
                for _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(taken, results, strict=True):
                if not future.done():
                    future.set_result(result)
