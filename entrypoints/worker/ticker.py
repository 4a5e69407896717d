"""Tends at every tick, and at once when another process wrote into the same SQLite file."""

import asyncio
from dataclasses import dataclass

import structlog

from domain.errors import PlatformError
from entrypoints.use_cases import UseCases

_LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Ticker:
    """The clock of a replica; every replica has one and none is special (L5)."""

    use_cases: UseCases

    async def run(self) -> None:
        """Tend until cancelled; trouble with the records is told once and tried again."""
        loop = asyncio.get_running_loop()
        seen, due, is_in_trouble = -1, 0.0, False
        while True:
            try:
                changes = await self.use_cases.records.changes()
                if changes != seen or loop.time() >= due:
                    await self.use_cases.tender.tend()
                    seen = changes
                    due = loop.time() + self.use_cases.tick.total_seconds()
                is_in_trouble = False
            except PlatformError as error:
                if not is_in_trouble:
                    structlog.get_logger("headrace").warning("tend.failed", code=error.code, message=error.message)
                is_in_trouble = True
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
