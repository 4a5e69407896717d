"""Background tasks that somebody keeps: none is forgotten, none fails in silence, all end with their owner."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from entrypoints.log import log

_START_AGAIN_SECONDS = 1.0


@dataclass
class BackgroundTasks:
    """Tasks of one owner."""

    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run work in the background and keep it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Callable[[], Awaitable[None]], *, name: str) -> asyncio.Task[Any]:
        """Run work for as long as the owner lives: should a bug end it, it is told and started again."""

        async def again() -> None:
            while True:
                try:
                    await work()
                    return
                except Exception as error:  # noqa: BLE001 - a replica without its clock would look alive and do nothing
                    log.error("task.failed", task=name, exc_info=error)
                    await asyncio.sleep(_START_AGAIN_SECONDS)

        return self.start(again(), name=name)

    async def finish(self, seconds: float) -> bool:
        """Wait for all tasks; False if some are not done in time."""
        if not self._tasks:
            return True
        _, pending = await asyncio.wait(set(self._tasks), timeout=seconds)
        return not pending

    async def cancel(self, seconds: float) -> bool:
        """Cancel all tasks and wait for their ends; False if some do not end in time."""
        for task in self._tasks:
            task.cancel()
        return await self.finish(seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task.failed", task=task.get_name(), exc_info=task.exception())
