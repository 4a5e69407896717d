"""One transaction for all who ask at the same time, so that a busy process pays for a commit once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathered(Generic[Item, Result]):
    """Hands what was asked while it was busy to `work` in one go; results come back in the order of the items. What
    differs by `apart`, as the organization, is never in one go.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        apart: Callable[[Item], Hashable] = lambda _item: None,
        at_most: int = 64,
    ) -> None:
        self._work = work
        self._apart = apart
        self._at_most = at_most
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Result:
        """Have one item done, alone or with others."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._draining is None or self._draining.done():
            # In a context of its own: it serves others too, who are in other scopes than whoever asks first.
            self._draining = asyncio.create_task(self._drain(), context=Context())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            taken = self._take()
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

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Take what goes together with whoever has waited the longest."""
        first = self._apart(self._waiting[0][0])
        taken: list[tuple[Item, asyncio.Future[Result]]] = []
        left: list[tuple[Item, asyncio.Future[Result]]] = []
        for each in self._waiting:
            (taken if len(taken) < self._at_most and self._apart(each[0]) == first else left).append(each)
        self._waiting = left
        return taken
