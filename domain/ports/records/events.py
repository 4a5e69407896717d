"""The port to stored events, and how far each subscriber has been told of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.events import Event


@dataclass(frozen=True)
class StoredEvent:
    """An event of the outbox."""

    id: int
    organization: str
    event_type: str
    payload: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Untold:
    """What a subscriber was not told yet: the next of it, in order.

    `holder` tells it events at this moment. `is_waiting` says that more may follow without anybody saying so: an event
    that comes before those which are there already may still be committed.
    """

    events: Sequence[StoredEvent] = ()
    holder: str | None = None
    is_waiting: bool = False


class IEventOutbox(ABC):
    """Events, committed with the state that caused them, and for each subscriber the last one that it was told.

    1. Each event is untold to each subscriber until that was told it, in whatever order transactions commit.
    2. Events come in the order in which they were stored: one that was stored in knowledge of another comes after it.
    3. What one subscriber was told, or who tells it, is nothing to any other.
    4. Between `untold` and the end of the unit nobody else tells the subscriber; after `hold`, not before its time is
       over or `note_told`.
    5. A new subscriber begins where the one that has been told least stands.
    """

    @abstractmethod
    async def add(self, *told: Event) -> None:
        """Store events."""

    @abstractmethod
    async def untold(self, subscriber: str, *, limit: int) -> Untold:
        """Return the next events that a subscriber was not told."""

    @abstractmethod
    async def hold(self, subscriber: str, holder: str, *, lease: timedelta) -> None:
        """Let nobody but the holder tell the subscriber, also after this unit, for a minute at most."""

    @abstractmethod
    async def note_told(self, subscriber: str, last: int, *, holder: str | None = None) -> bool:
        """Remember that a subscriber was told all up to an event, and hold it no longer; False if somebody else holds
        it by now.
        """

    @abstractmethod
    async def of_run(
        self, organization: str, run_id: str, *, newest: int, before: int | None = None
    ) -> Sequence[StoredEvent]:
        """Return the newest stored events of a run, or of those before one, the oldest of them first."""
