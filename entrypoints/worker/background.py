"""Background tasks that somebody keeps: none is forgotten, none fails in silence, all end with their owner."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog


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
            structlog.get_logger("headrace").error("task.failed", task=task.get_name(), exc_info=task.exception())
