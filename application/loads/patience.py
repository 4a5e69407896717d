"""How long a store may take over one answer, so that a query that never answers ends its run by name."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from domain.errors import PlatformError, WorkFailedError

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """Waits for a store up to a limit; then what it is doing is interrupted, and its connection let go."""

    limit: timedelta
    remedy: str = (
        "make its query cheaper or its batches smaller (run.batch_rows), or raise HEADRACE_RUN__QUERY_TIMEOUT_SECONDS"
    )

    async def answer(self, asked: Awaitable[T]) -> T:
        """Wait for one answer.

        Raises:
            WorkFailedError: it did not come in time (`query.timeout`).
        """
        async with self.within():
            return await asked

    @asynccontextmanager
    async def within(self) -> AsyncIterator[None]:
        """Do what is in the block.

        Raises:
            WorkFailedError: it was not done in time (`query.timeout`).
        """
        try:
            async with asyncio.timeout(self.limit.total_seconds()) as waiting:
                yield
        except (TimeoutError, PlatformError) as error:
            if not waiting.expired():
                raise  # Else it was interrupted, whatever a store says of that while it is let go.
            raise WorkFailedError(
                f"The source gave no answer within {self.limit.total_seconds():g} s; {self.remedy}.",
                code="query.timeout",
            ) from error

    async def each(
        self, items: AsyncGenerator[T, None], waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> AsyncGenerator[T, None]:
        """Yield the items of a read, none of which may take longer than the limit; close it after."""
        async with aclosing(items):
            while True:
                try:
                    with waiting():
                        item = await self.answer(anext(items))
                except StopAsyncIteration:
                    return
                yield item
