"""Tends at every tick, and at once when another process wrote into the same SQLite file; hears wishes to drain."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from domain.errors import PlatformError
from entrypoints.log import log
from entrypoints.use_cases import UseCases
from entrypoints.worker.main import Worker

_LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Ticker:
    """The clock of a replica; every replica has one and none is special (L5). `worker` is None where none works."""

    use_cases: UseCases
    worker: Worker | None
    roles: str
    drain_file: Path

    async def run(self) -> None:
        """Tend until cancelled; trouble with the records is told once and tried again."""
        loop = asyncio.get_running_loop()
        seen, due, is_in_trouble, has_begun = -1, 0.0, False, False
        while True:
            if not self.use_cases.life.is_draining and self.drain_file.exists():
                log.info("drain.file", path=str(self.drain_file))
                self.use_cases.life.begin_shutdown()
            try:
                if not has_begun:
                    await self.use_cases.tender.begin()
                    has_begun = True
                changes = await self.use_cases.tender.changes()
                is_due = loop.time() >= due
                if changes != seen or is_due:
                    await self._tend()
                    seen = changes
                if is_due:
                    await self.use_cases.workers.beat(self.roles, running=self.worker.running if self.worker else 0)
                    due = loop.time() + self.use_cases.tick.total_seconds()
                is_in_trouble = False
            except PlatformError as error:
                if not is_in_trouble:
                    log.warning("tend.failed", code=error.code, message=error.message)
                is_in_trouble = True
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _tend(self) -> None:
        if self.worker is None:
            await self.use_cases.tender.ring_again()
        else:
            self.worker.accept(await self.use_cases.tender.take(self.worker.free))
