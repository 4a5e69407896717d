"""Tells subscribers what happened: stored events once their transaction is durable, batch events at once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from application.events.outbox import Delivery, Subscriber, Told
from application.log import log
from domain.errors import PlatformError
from domain.events import Event

# Between two looks at the outbox, so that where much happens it is told many events at a time.
_BREATH_SECONDS = 0.02
_LONGEST_BREATH_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
_MOST_LOOKS = 50


@dataclass(eq=False)
class _Line:
    """A subscriber's delivery in this process, by one task at a time."""

    delivery: Delivery
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def tell_some(self) -> Told:
        async with self.lock:
            return await self.delivery.tell_some()


class Announcer:
    """Has each subscriber told on its own: one that fails is tried again after a pause, and holds up itself only."""

    def __init__(self, deliveries: Sequence[Delivery], listeners: Sequence[Subscriber] = ()) -> None:
        self._lines = [_Line(delivery) for delivery in deliveries]
        self._listeners = listeners
        self._failing: set[int] = set()

    def tell(self, event: Event) -> None:
        """Tell an event that is not stored: a batch's, of which there may be many."""
        for number, listener in enumerate(self._listeners):
            try:
                listener(event.event_type, event.payload())
            except Exception as error:  # noqa: BLE001 - the work that is told of must not end by who listens
                if number not in self._failing:
                    log.error("tell.failed", told=event.event_type, exc_info=error)
                self._failing.add(number)
            else:
                self._failing.discard(number)

    def nudge(self) -> None:
        """Say that there is something to tell; whoever runs `keep_telling` in this process tells it."""
        for line in self._lines:
            line.wanted.set()

    async def keep_telling(self) -> None:
        """Tell what is stored, each time somebody nudges, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for line in self._lines:
                tasks.create_task(self._keep_telling(line), name=f"tell {line.delivery.name}")

    async def _keep_telling(self, line: _Line) -> None:
        pause, breath = 0.0, _BREATH_SECONDS
        while True:
            await line.wanted.wait()
            line.wanted.clear()
            try:
                told = await line.tell_some()
                pause = 0.0
            except Exception as error:  # noqa: BLE001 - whatever a subscriber fails with, it is told again
                if not pause:
                    _say(line.delivery.name, error)
                pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                told = Told(soon=True)
            if told.has_written:
                self.nudge()
            if told.at_once or told.soon:
                line.wanted.set()
            is_vain = told.soon and not told.count  # Somebody else tells it, or an event may still come before others.
            breath = min(breath * 2, _LONGEST_BREATH_SECONDS) if is_vain else _BREATH_SECONDS
            if not told.at_once:
                await asyncio.sleep(pause or breath)

    async def flush(self) -> int:
        """Tell every stored event that was not told yet; return how often one was told.

        Raises:
            PlatformError: the records cannot be reached; each subscriber was tried all the same.
        """
        count, failed = 0, dict[_Line, Exception]()
        for _ in range(_MOST_LOOKS):
            told = [await self._flush(line, failed) for line in self._lines if line not in failed]
            count += sum(each.count for each in told)
            if any(each.has_written for each in told):
                continue
            if not any(each.soon for each in told):
                break
            await asyncio.sleep(_BREATH_SECONDS)
        for error in failed.values():
            if isinstance(error, PlatformError):
                raise error
        return count

    @staticmethod
    async def _flush(line: _Line, failed: dict[_Line, Exception]) -> Told:
        count, has_written = 0, False
        while True:
            try:
                told = await line.tell_some()
            except Exception as error:  # noqa: BLE001 - whatever a subscriber fails with, the others are told
                failed[line] = error
                if not isinstance(error, PlatformError):
                    _say(line.delivery.name, error)
                return Told(count, has_written=has_written)
            count += told.count
            has_written = has_written or told.has_written
            if not told.at_once:
                return Told(count, soon=told.soon, has_written=has_written)


def _say(subscriber: str, error: Exception) -> None:
    if isinstance(error, PlatformError):
        log.warning("tell.failed", subscriber=subscriber, code=error.code, message=error.message)
    else:
        log.error("tell.failed", subscriber=subscriber, exc_info=error)
