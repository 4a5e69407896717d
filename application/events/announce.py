"""Tells subscribers what happened: stored events once their transaction is durable, batch events at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from domain.events import Event
from domain.ports.unit_of_work import IRecords

Subscriber = Callable[[str, Mapping[str, Any]], None]
_PAGE = 100


@dataclass(frozen=True)
class Announcer:
    """Delivers the outbox at least once, in order."""

    records: IRecords
    subscribers: Sequence[Subscriber]

    def tell(self, event: Event) -> None:
        """Tell an event that is not stored: a batch's, of which there may be many."""
        for subscriber in self.subscribers:
            subscriber(event.event_type, event.payload())

    async def flush(self) -> int:
        """Tell every stored event that was not told yet; return how many."""
        told = 0
        while True:
            async with self.records.unit() as unit:
                events = await unit.events.unsent(limit=_PAGE)
                for event in events:
                    for subscriber in self.subscribers:
                        subscriber(event.event_type, event.payload)
                if not events:
                    return told
                await unit.events.mark_sent([event.id for event in events])
                await unit.commit()
            told += len(events)


def log_event(event_type: str, payload: Mapping[str, Any]) -> None:
    """Write an event as one canonical line."""
    level = "warning" if event_type in ("batch.failed", "data_quality.issue") else "info"
    getattr(structlog.get_logger("headrace"), level)(event_type, event_type=event_type, **payload)
