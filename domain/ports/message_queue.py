"""The port to a message queue: a doorbell, never the truth."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Message:
    """JSON values with headers (trace context); never a secret."""

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class IDelivery(ABC):
    """One delivery of a message to one consumer."""

    @property
    @abstractmethod
    def message(self) -> Message:
        """What was published."""

    @abstractmethod
    async def acknowledge(self) -> None:
        """Say that the message is dealt with; it is not delivered again."""

    @abstractmethod
    async def reject(self, reason: str) -> None:
        """Put the message aside as a dead letter with its reason."""


class IMessageQueue(ABC):
    """Topics with competing consumers; delivery is at least once.

    1. A published message reaches one consumer of the topic.
    2. A message that was neither acknowledged nor rejected when its consumer ended is delivered again.
    3. A rejected message is in the dead letters with its reason and is not delivered again.
    4. `publish` never blocks without end: a full queue raises `UnavailableError`.
    5. `depth` counts what waits for a consumer.
    6. `close` ends every subscription.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def close(self) -> None:
        """End subscriptions and release everything; harmless when nothing is open."""

    @abstractmethod
    async def health_check(self) -> str | None:
        """Name the trouble, or None."""

    @abstractmethod
    async def publish(self, topic: str, message: Message) -> None:
        """Hand over a message."""

    @abstractmethod
    def subscribe(self, topic: str) -> AsyncIterator[IDelivery]:
        """Yield deliveries until the queue is closed or the iterator is."""

    @abstractmethod
    async def depth(self, topic: str) -> int:
        """Count the messages that wait."""

    @abstractmethod
    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        """Return dead letters with their reasons, oldest first."""
