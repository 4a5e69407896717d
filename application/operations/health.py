"""Is it alive, is it ready, and if not, which part is not."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property


class LifeState(StrEnum):
    """States of the process; only `running` takes new work."""

    STARTING = "starting"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting_down"
    STOPPED = "stopped"


class Life:
    """The one flag that doors, worker and executor look at."""

    def __init__(self) -> None:
        self.state = LifeState.STARTING
        self._asked_to_stop = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """True once a shutdown has begun."""
        return self.state in (LifeState.SHUTTING_DOWN, LifeState.STOPPED)

    def started(self) -> None:
        """Say that everything is open; a wish to stop that came earlier stands."""
        if self.state is LifeState.STARTING:
            self.state = LifeState.RUNNING

    def begin_shutdown(self) -> None:
        """Take no new work from now on; harmless when it was said before."""
        if not self.is_draining:
            self.state = LifeState.SHUTTING_DOWN
        self._asked_to_stop.set()

    async def wait_for_shutdown(self) -> None:
        """Return once a shutdown has begun."""
        await self._asked_to_stop.wait()


@dataclass(frozen=True)
class Readiness:
    """The verdict and each part's trouble, None where there is none."""

    is_ready: bool
    parts: Mapping[str, str | None]


PartCheck = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True)
class HealthMonitor:
    """Checks the needed parts, each within its own time (X4)."""

    life: Life
    time_limit: timedelta
    parts: Mapping[str, PartCheck] = field(default_factory=dict)

    async def readiness(self) -> Readiness:
        """Check every part at once; never raises. Whoever asks meanwhile has the same answer: they need no key, and
        parts that are asked by hundreds do not answer in time.
        """
        if not self._checks or self._checks[-1].done():
            self._checks[:] = [asyncio.create_task(self._checked())]
        return await asyncio.shield(self._checks[-1])

    @cached_property
    def _checks(self) -> list[asyncio.Task[Readiness]]:
        return []

    async def _checked(self) -> Readiness:
        troubles = await asyncio.gather(*(self._check(check) for check in self.parts.values()))
        parts = dict(zip(self.parts, troubles, strict=True))
        is_ready = self.life.state is LifeState.RUNNING and not any(parts.values())
        return Readiness(is_ready, {"process": _process_trouble(self.life), **parts})

    async def _check(self, check: PartCheck) -> str | None:
        try:
            async with asyncio.timeout(self.time_limit.total_seconds()):
                return await check()
        except TimeoutError:
            return f"did not answer within {self.time_limit.total_seconds():g} s"


def _process_trouble(life: Life) -> str | None:
    return None if life.state is LifeState.RUNNING else life.state.value.replace("_", " ")
