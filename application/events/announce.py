"""Tells subscribers what happened: stored events once their transaction is durable, batch events at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from domain.errors import PlatformError
from domain.events import Event
from domain.ports.unit_of_work import IRecords, IUnitOfWork, StoredEvent
from domain.runs.run import Ring

Subscriber = Callable[[str, Mapping[str, Any]], None]
Reaction = Callable[[IUnitOfWork, Sequence[StoredEvent]], Awaitable[Sequence[Ring]]]
"""Writes what follows from events in the transaction that marks them as told, and returns what to ring for."""
Bound = Callable[[IUnitOfWork, Sequence[StoredEvent]], Awaitable[Sequence[StoredEvent]]]
"""Gives the first of some events, as many as may be reacted to in one transaction."""

_PAGE = 100


class Announcer:
    """Delivers the outbox at least once to subscribers, and exactly once to reactions, which share its transaction."""

    def __init__(
        self,
        records: IRecords,
        subscribers: Sequence[Subscriber],
        reactions: Sequence[Reaction],
        ring: Callable[[Sequence[Ring]], Awaitable[None]],
        bound: Bound | None = None,
    ) -> None:
        self._records = records
        self._subscribers = subscribers
        self._reactions = reactions
        self._ring = ring
        self._bound = bound
        self._wanted = asyncio.Event()

    def tell(self, event: Event) -> None:
        """Tell an event that is not stored: a batch's, of which there may be many."""
        for subscriber in self._subscribers:
            subscriber(event.event_type, event.payload())

    def nudge(self) -> None:
        """Say that there is something to tell; whoever runs `keep_telling` in this process tells it."""
        self._wanted.set()

    async def keep_telling(self) -> None:
        """Tell what is stored, each time somebody nudges, until cancelled."""
        is_in_trouble = False
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.flush()
                is_in_trouble = False
            except PlatformError as error:  # The tender's next round nudges again.
                if not is_in_trouble:
                    structlog.get_logger("headrace").warning("tell.failed", code=error.code, message=error.message)
                is_in_trouble = True

    async def flush(self) -> int:
        """Tell every stored event that was not told yet; return how many."""
        told = 0
        while True:
            rings: list[Ring] = []
            async with self._records.unit() as unit:
                events = await unit.events.unsent(limit=_PAGE)
                if not events:
                    return told
                if self._bound is not None:
                    events = await self._bound(unit, events)
                for event in events:
                    for subscriber in self._subscribers:
                        subscriber(event.event_type, event.payload)
                for reaction in self._reactions:
                    rings += await reaction(unit, events)
                await unit.events.mark_sent([event.id for event in events])
                await unit.commit()
            await self._ring(rings)
            told += len(events)


def log_event(event_type: str, payload: Mapping[str, Any]) -> None:
    """Write an event as one canonical line."""
    level = "warning" if event_type.startswith(("batch.failed", "data_quality.")) else "info"
    getattr(structlog.get_logger("headrace"), level)(event_type, event_type=event_type, **payload)
