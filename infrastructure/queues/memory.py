"""IMessageQueue in this process, with the delivery rules of the brokers."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator

from domain.errors import UnavailableError
from domain.ports.message_queue import IDelivery, IMessageQueue, Message


class _Topic:
    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.arrived = asyncio.Condition()
        self.dead: deque[tuple[Message, str]] = deque(maxlen=1000)


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
    """Bounded topics; what a consumer leaves unsettled goes back to the front."""

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
        if len(found.waiting) >= self._max_depth:
            raise UnavailableError("The in-memory queue is full.", code="queue.full")
        async with found.arrived:
            found.waiting.append(message)
            found.arrived.notify()

    async def subscribe(self, topic: str) -> AsyncIterator[IDelivery]:
        found = self._topics[topic]
        while True:
            async with found.arrived:
                await found.arrived.wait_for(lambda: found.waiting or not self._is_open)
                if not self._is_open:
                    return
                delivery = InMemoryDelivery(found.waiting.popleft(), found)
            try:
                yield delivery
            finally:
                if not delivery.is_settled:
                    delivery.is_settled = True
                    async with found.arrived:
                        found.waiting.appendleft(delivery.message)
                        found.arrived.notify()

    async def depth(self, topic: str) -> int:
        return len(self._topics[topic].waiting)

    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        return list(self._topics[topic].dead)
