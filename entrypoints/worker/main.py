"""The worker: takes run ids from the doorbell, executes runs within bounds, and drains when told."""

import asyncio
from dataclasses import dataclass, field

import structlog

from application.pipelines.launch import RUNS_TOPIC
from entrypoints.use_cases import UseCases
from entrypoints.worker.handlers import RunHandler
from entrypoints.worker.ticker import Ticker


@dataclass
class Worker:
    """Consumes and tends in the background of a process."""

    use_cases: UseCases
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _background: list[asyncio.Task[None]] = field(default_factory=list)

    async def start(self) -> None:
        """Start consuming and tending."""
        self._background = [
            asyncio.create_task(self._consume(), name="consume"),
            asyncio.create_task(Ticker(self.use_cases).run(), name="tick"),
        ]

    async def stop(self, grace_seconds: float) -> bool:
        """Stop taking runs and wait for those in hand to reach a batch border; False when the grace ran out."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._tasks:
            _, pending = await asyncio.wait(self._tasks, timeout=grace_seconds)
            for task in pending:
                task.cancel()
            return not pending
        return True

    async def _consume(self) -> None:
        handler = RunHandler(self.use_cases)
        slots = asyncio.Semaphore(self.use_cases.concurrency)
        async for delivery in self.use_cases.queue.subscribe(RUNS_TOPIC):
            await slots.acquire()
            claimed = await handler.claim(delivery)
            if claimed is None:
                slots.release()
                continue
            task = asyncio.create_task(handler.perform(claimed), name=f"run {claimed.id}")
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._finished(done, slots))

    def _finished(self, task: asyncio.Task[None], slots: asyncio.Semaphore) -> None:
        self._tasks.discard(task)
        slots.release()
        if not task.cancelled() and task.exception() is not None:
            structlog.get_logger("headrace").error("worker.failed", exc_info=task.exception())
