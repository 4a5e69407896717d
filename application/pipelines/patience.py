"""How long a store may take over one answer, so that a query that never answers ends its run by name."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from domain.errors import WorkFailedError

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """Waits for a store up to a limit; then what it is doing is interrupted, and its connection let go."""

    limit: timedelta

    async def answer(self, asked: Awaitable[T]) -> T:
        """Wait for one answer.

        Raises:
            WorkFailedError: it did not come in time (`query.timeout`).
        """
        try:
            async with asyncio.timeout(self.limit.total_seconds()) as waiting:
                return await asked
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise WorkFailedError(
                f"The source gave no answer within {self.limit.total_seconds():g} s; make its query cheaper or its batches "
                "smaller (run.batch_rows), or raise HEADRACE_RUN__QUERY_TIMEOUT_SECONDS.",
                code="query.timeout",
            ) from error

    async def each(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield the items of a read, none of which may take longer than the limit; close it after."""
        async with aclosing(items):
            while True:
                try:
                    item = await self.answer(anext(items))
                except StopAsyncIteration:
                    return
                yield item
