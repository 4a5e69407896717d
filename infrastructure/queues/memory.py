"""IMessageQueue in this process, with the delivery rules of the brokers."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator

from domain.errors import UnavailableError
from domain.ports.message_queue import IDelivery, IMessageQueue, Message


class _Topic:
    """Waiting messages by key; keys take turns."""

    def __init__(self) -> None:
        self.by_key: dict[str, deque[Message]] = {}
        self.depth = 0
        self.arrived = asyncio.Condition()
        self.dead: deque[tuple[Message, str]] = deque(maxlen=1000)

    def put(self, message: Message, *, first: bool = False) -> None:
        waiting = self.by_key.setdefault(message.key, deque())
        waiting.appendleft(message) if first else waiting.append(message)
        self.depth += 1

    def take(self) -> Message:
        key = next(iter(self.by_key))
        waiting = self.by_key.pop(key)
        message = waiting.popleft()
        if waiting:
            self.by_key[key] = waiting  # Behind the other keys: their turn comes first.
        self.depth -= 1
        return message


class InMemoryDelivery(IDelivery):
    """One delivery; it knows whether it was dealt with."""

    def __init__(self, message: Message, topic: _Topic) -> None:
        self._message = message
        self._topic = topic
        self.is_settled = False

    @property
    def message(self) -> Message:
        return self._message

    async def acknowledge(self) -> None:
        self.is_settled = True

    async def reject(self, reason: str) -> None:
        if not self.is_settled:
            self.is_settled = True
            self._topic.dead.append((self._message, reason))


class InMemoryMessageQueue(IMessageQueue):
    """Bounded topics; what a subscription leaves unsettled goes back to the front."""

    outlives_process = False

    def __init__(self, *, max_depth: int = 100_000) -> None:
        self._max_depth = max_depth
        self._topics: defaultdict[str, _Topic] = defaultdict(_Topic)
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        for topic in list(self._topics.values()):
            async with topic.arrived:
                topic.arrived.notify_all()

    async def health_check(self) -> str | None:
        return None if self._is_open else "The in-memory queue is not open."

    async def publish(self, topic: str, message: Message) -> None:
        if not self._is_open:
            raise UnavailableError("The in-memory queue is not open.", code="queue.unavailable")
        found = self._topics[topic]
        if found.depth >= self._max_depth:
            raise UnavailableError("The in-memory queue is full.", code="queue.full")
        async with found.arrived:
            found.put(message)
            found.arrived.notify()

    async def subscribe(self, topic: str) -> AsyncGenerator[IDelivery, None]:
        found = self._topics[topic]
        unsettled: deque[InMemoryDelivery] = deque()
        try:
            while True:
                async with found.arrived:
                    await found.arrived.wait_for(lambda: found.depth or not self._is_open)
                    if not self._is_open:
                        return
                    delivery = InMemoryDelivery(found.take(), found)
                while unsettled and unsettled[0].is_settled:
                    unsettled.popleft()
                unsettled.append(delivery)
                yield delivery
        finally:
            async with found.arrived:
                for left in reversed(unsettled):
                    if not left.is_settled:
                        left.is_settled = True
                        found.put(left.message, first=True)
                found.arrived.notify_all()

    async def depth(self, topic: str) -> int:
        return self._topics[topic].depth

    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        return list(self._topics[topic].dead)
