"""Delivers stored events to one subscriber each, in order; how far each has come stands in its cursor."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from domain.identity.scope import PLATFORM
from domain.ports.records.events import StoredEvent
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.ports.runtime import IClock
from domain.runs.run import Ring

Subscriber = Callable[[str, Mapping[str, Any]], None]
Reaction = Callable[[IUnitOfWork, Sequence[StoredEvent]], Awaitable[Sequence[Ring]]]
"""Writes what follows from events in the transaction that notes them as told, and returns what to ring for."""
Bound = Callable[[IUnitOfWork, Sequence[StoredEvent]], Awaitable[Sequence[StoredEvent]]]
"""Gives the first of some events, as many as may be reacted to in one transaction."""

_PAGE = 100
_LEASE = timedelta(seconds=10)


@dataclass(frozen=True)
class Told:
    """How many events a subscriber was told; there may be more `at_once`, or `soon` and nobody will say so. It may
    have written what others are to be told.
    """

    count: int = 0
    at_once: bool = False
    soon: bool = False
    has_written: bool = False


class Delivery(ABC):
    """Tells one subscriber what is stored."""

    name: str

    @abstractmethod
    async def tell_some(self) -> Told:
        """Tell the next events, if there are any and nobody else tells this subscriber at the moment."""


@dataclass(frozen=True)
class ReactionDelivery(Delivery):
    """Exactly once: what follows from events is written in the transaction that notes them as told."""

    records: IRecords
    name: str
    react: Reaction
    bound: Bound
    ring: Callable[[Sequence[Ring]], Awaitable[None]]

    async def tell_some(self) -> Told:
        async with self.records.unit(PLATFORM) as unit:
            untold = await unit.events.untold(self.name, limit=_PAGE)
            if not untold.events:
                return Told(soon=untold.is_waiting)
            events = await self.bound(unit, untold.events)
            rings = await self.react(unit, events)
            await unit.events.note_told(self.name, events[-1].id)
            await unit.commit()
        await self.ring(rings)
        is_cut = len(events) < len(untold.events)
        at_once = is_cut or len(events) == _PAGE
        return Told(len(events), at_once, soon=untold.is_waiting, has_written=bool(rings))


@dataclass
class SubscriberDelivery(Delivery):
    """At least once: outside of any transaction, and by one process at a time, which `holder` names."""

    records: IRecords
    name: str
    tell: Subscriber
    clock: IClock
    holder: str
    _not_noted: int = 0

    async def tell_some(self) -> Told:
        async with self.records.unit(PLATFORM) as unit:
            untold = await unit.events.untold(self.name, limit=_PAGE)
            if not untold.events or untold.holder not in (None, self.holder):
                return Told(soon=untold.is_waiting or untold.holder is not None)
            await unit.events.hold(self.name, self.holder, lease=_LEASE)
            await unit.commit()
        until = self.clock.monotonic() + _LEASE.total_seconds() / 2
        count, last = 0, untold.events[0].id - 1
        try:
            for event in untold.events:
                if event.id > self._not_noted:
                    self.tell(event.event_type, event.payload)
                    self._not_noted = event.id
                    count += 1
                last = event.id
                if self.clock.monotonic() > until:
                    break
        finally:
            async with self.records.unit(PLATFORM) as unit:
                await unit.events.note_told(self.name, last, holder=self.holder)
                await unit.commit()
            self._not_noted = 0
        is_all = last == untold.events[-1].id
        return Told(count, not is_all or len(untold.events) == _PAGE, soon=untold.is_waiting)
