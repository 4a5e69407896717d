"""The worker: takes run ids from the doorbell, executes runs within bounds, and drains when told."""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from domain.errors import PlatformError, UnavailableError
from domain.ports.message_queue import IDelivery
from domain.runs.run import Ring
from entrypoints.log import log
from entrypoints.use_cases import UseCases
from entrypoints.worker.background import BackgroundTasks
from entrypoints.worker.handlers import RunHandler

_BUSY_SECONDS = 1.0
_SUBSCRIBE_AGAIN_SECONDS = 1.0


class Worker:
    """Executes up to `concurrency` runs at a time; a message is taken only when there is room for its run."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases
        self._handler = RunHandler(use_cases)
        self._runs = BackgroundTasks()
        self._freed = asyncio.Event()

    @property
    def running(self) -> int:
        """Runs in hand."""
        return len(self._runs)

    @property
    def free(self) -> int:
        """Runs that could be taken now."""
        return 0 if self._use_cases.life.is_draining else max(0, self._use_cases.concurrency - self.running)

    def accept(self, rings: Sequence[Ring]) -> None:
        """Execute runs that the tender of this process found."""
        for ring in rings:
            self._start(self._handler.handle_ring(ring), ring.run_id)

    async def consume(self) -> None:
        """Take rings until cancelled; a broker that is gone is subscribed to again once it is back."""
        is_in_trouble = False
        while True:
            try:
                async with aclosing(self._use_cases.doorbell.rings()) as deliveries:
                    while True:
                        await self._room()
                        delivery = await anext(deliveries, None)
                        if delivery is None:
                            return
                        is_in_trouble = False
                        await self._take(delivery)
            except UnavailableError as error:
                if not is_in_trouble:
                    log.warning("queue.lost", code=error.code, message=error.message)
                is_in_trouble = True
                await asyncio.sleep(_SUBSCRIBE_AGAIN_SECONDS)

    async def stop(self, grace_seconds: float, margin_seconds: float) -> bool:
        """Wait for the runs in hand to reach a batch border; interrupt those that do not. False if one hangs on."""
        if await self._runs.finish(grace_seconds):
            return True
        log.warning("drain.interrupts", runs=self.running)
        return await self._runs.cancel(margin_seconds)

    async def _take(self, delivery: IDelivery) -> None:
        if await self._room():
            run_id = str(delivery.message.body.get("run_id"))
            self._start(self._handler.handle(delivery), run_id)
            return
        try:
            await self._handler.pass_on(delivery)
        except PlatformError as error:
            log.warning("pass_on.failed", code=error.code)

    async def _room(self) -> bool:
        """Wait until a run could be taken; with a broker whose messages wait for this consumer alone, not for long."""
        waits = self._use_cases.doorbell.waits_for_whoever_is_free
        while self.running >= self._use_cases.concurrency:
            self._freed.clear()
            try:
                async with asyncio.timeout(None if waits else _BUSY_SECONDS):
                    await self._freed.wait()
            except TimeoutError:
                return False
        return True

    def _start(self, work: Coroutine[Any, Any, None], run_id: str) -> None:
        task = self._runs.start(work, name=f"run {run_id}")
        task.add_done_callback(lambda _: self._freed.set())
