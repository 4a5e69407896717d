"""Is it alive, is it ready, and if not, which part is not."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property

from application.log import log
from domain.ports.runtime import IClock

_HISTORY = timedelta(minutes=1)


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


class PartStatus(StrEnum):
    """How a part is: with a degraded one work goes on, with an unhealthy one none is taken."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class PartHealth:
    """How a part is, and what troubles it. Whoever asks has no key: no host, user or path is told."""

    status: PartStatus = PartStatus.HEALTHY
    detail: str | None = None

    @classmethod
    def of(cls, trouble: str | None) -> "PartHealth":
        """That of a part without which nothing can be done."""
        return cls() if trouble is None else cls(PartStatus.UNHEALTHY, trouble)

    @classmethod
    def of_help(cls, trouble: str | None) -> "PartHealth":
        """That of a part without which all is done, and slower."""
        return cls() if trouble is None else cls(PartStatus.DEGRADED, trouble)


@dataclass(frozen=True)
class Readiness:
    """The verdict, the state of the process, and how each part is."""

    is_ready: bool
    state: LifeState
    parts: Mapping[str, PartHealth]


@dataclass(frozen=True)
class Liveness:
    """What is known without asking anybody: `recent` are the last looks at each part, the newest last."""

    status: str
    uptime_seconds: float
    at: datetime
    checked_at: datetime | None
    parts: Mapping[str, PartHealth]
    recent: Mapping[str, Sequence[PartStatus]]


PartCheck = Callable[[], Awaitable[PartHealth]]


@dataclass(eq=False)
class HealthMonitor:
    """Checks the needed parts, each within its own time (X4), and looks at them again and again for who must not."""

    life: Life
    clock: IClock
    time_limit: timedelta
    every: timedelta
    parts: Mapping[str, PartCheck] = field(default_factory=dict)
    _looks: deque[tuple[datetime, Readiness]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    async def watch(self) -> None:
        """Look at the parts until a shutdown begins; a minute of that is kept."""
        while not self.life.is_draining:
            self._looks.append((self.clock.now(), await self.readiness()))
            while self._looks[0][0] < self.clock.now() - _HISTORY and len(self._looks) > 1:
                self._looks.popleft()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.every.total_seconds()):
                    await self.life.wait_for_shutdown()

    def liveness(self) -> Liveness:
        """How the process is, by the looks of `watch`: nothing is touched."""
        checked_at, last = self._looks[-1] if self._looks else (None, None)
        parts = last.parts if last is not None else {}
        recent = {name: [look.parts[name].status for _, look in self._looks] for name in parts}
        is_well = all(part.status is PartStatus.HEALTHY for part in parts.values())
        status = "shutting_down" if self.life.is_draining else "healthy" if is_well else "degraded"
        uptime = round(self.clock.monotonic() - self._started, 3)
        return Liveness(status, uptime, self.clock.now(), checked_at, parts, recent)

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
        found = await asyncio.gather(*(self._check(check) for check in self.parts.values()))
        parts = dict(zip(self.parts, found, strict=True))
        is_well = all(part.status is not PartStatus.UNHEALTHY for part in parts.values())
        process = PartHealth.of(_process_trouble(self.life))
        is_ready = self.life.state is LifeState.RUNNING and is_well
        return Readiness(is_ready, self.life.state, {"process": process, **parts})

    async def _check(self, check: PartCheck) -> PartHealth:
        try:
            async with asyncio.timeout(self.time_limit.total_seconds()):
                return await check()
        except TimeoutError:
            return PartHealth.of(f"did not answer within {self.time_limit.total_seconds():g} s")
        except Exception as error:  # noqa: BLE001 - a bug in one look must not hide how the other parts are
            log.error("health.crashed", exc_info=error)
            return PartHealth.of("could not be looked at; the log has the details")


def _process_trouble(life: Life) -> str | None:
    return None if life.state is LifeState.RUNNING else life.state.value.replace("_", " ")
