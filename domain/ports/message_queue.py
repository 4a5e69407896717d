"""The port to a message queue: a doorbell, never the truth."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Message:
    """JSON values with headers (trace context); never a secret. Messages of one `key` belong to one organization."""

    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str = ""


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
    2. A message that was neither acknowledged nor rejected when its subscription ended is delivered again, also when
       the consumer died.
    3. A rejected message is in the dead letters with its reason and is not delivered again.
    4. `publish` never blocks without end: a full, closed or unreachable queue raises `UnavailableError`.
    5. `depth` counts what waits for a consumer.
    6. `close` hands over what was published and ends every subscription.
    7. Partitions of keys take turns, so the backlog of one key does not hold up a key of another partition.
    8. A message that cannot be decoded becomes a dead letter with its reason, and the subscription goes on.
    9. A topic that the broker has lost is made again; what is published afterwards arrives.
    """

    waits_for_whoever_is_free: ClassVar[bool] = True
    """False where a message waits for the one consumer that owns its partition: a busy worker then passes it on."""

    outlives_process: ClassVar[bool] = True
    """False where the messages end with the process, so that whoever comes next knows that none is left."""

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
        """Hand over a message.

        Raises:
            UnavailableError: `queue.full`, `queue.unavailable`.
        """

    @abstractmethod
    def subscribe(self, topic: str) -> AsyncGenerator[IDelivery, None]:
        """Yield deliveries until the queue is closed or the generator is; each is settled by whoever got it.

        Raises:
            UnavailableError: the broker went away; the caller subscribes again.
        """

    @abstractmethod
    async def depth(self, topic: str) -> int:
        """Count the messages that wait: the lag of the topic's consumers."""

    @abstractmethod
    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        """Return dead letters with their reasons, oldest first; an undecodable one has its text as `raw`."""
