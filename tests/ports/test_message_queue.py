"""One suite for every IMessageQueue."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from domain.errors import UnavailableError
from domain.ports.message_queue import Message
from infrastructure.queues.memory import InMemoryMessageQueue


@pytest.fixture(params=["memory"])
async def queue() -> AsyncIterator[InMemoryMessageQueue]:
    built = InMemoryMessageQueue(max_depth=3)
    await built.open()
    yield built
    await built.close()


@pytest.mark.clause("IMessageQueue", 1)
async def test_message_reaches_one_consumer(queue: InMemoryMessageQueue) -> None:
    got: list[tuple[str, object]] = []

    async def consume(name: str) -> None:
        async for delivery in queue.subscribe("t"):
            got.append((name, delivery.message.body["n"]))
            await delivery.acknowledge()

    consumers = [asyncio.create_task(consume(name)) for name in "ab"]
    for number in range(3):
        await queue.publish("t", Message({"n": number}, {"traceparent": "00-1"}))
    while len(got) < 3:
        await asyncio.sleep(0)
    await queue.close()
    await asyncio.gather(*consumers)

    assert sorted(number for _, number in got) == [0, 1, 2]
    assert await queue.depth("t") == 0


@pytest.mark.clause("IMessageQueue", 2)
async def test_unsettled_message_is_delivered_again(queue: InMemoryMessageQueue) -> None:
    await queue.publish("t", Message({"n": 1}))
    first = queue.subscribe("t")
    await anext(first)
    await first.aclose()  # type: ignore[attr-defined]

    second = queue.subscribe("t")
    delivery = await anext(second)
    await delivery.acknowledge()
    await second.aclose()  # type: ignore[attr-defined]

    assert delivery.message.body == {"n": 1}
    assert await queue.depth("t") == 0


@pytest.mark.clause("IMessageQueue", 3)
async def test_rejected_message_is_a_dead_letter_with_its_reason(queue: InMemoryMessageQueue) -> None:
    await queue.publish("t", Message({"n": 1}))
    subscription = queue.subscribe("t")

    await (await anext(subscription)).reject("not a run")
    await subscription.aclose()  # type: ignore[attr-defined]

    assert await queue.dead_letters("t") == [(Message({"n": 1}), "not a run")]
    assert await queue.depth("t") == 0


@pytest.mark.clause("IMessageQueue", 4)
async def test_full_or_closed_queue_refuses(queue: InMemoryMessageQueue) -> None:
    for number in range(3):
        await queue.publish("t", Message({"n": number}))

    with pytest.raises(UnavailableError) as full:
        await queue.publish("t", Message({"n": 3}))
    await queue.close()
    with pytest.raises(UnavailableError):
        await queue.publish("u", Message({"n": 3}))

    assert full.value.code == "queue.full"
    assert await queue.health_check() is not None


@pytest.mark.clause("IMessageQueue", 5)
async def test_depth_counts_what_waits(queue: InMemoryMessageQueue) -> None:
    assert await queue.depth("t") == 0
    await queue.publish("t", Message({"n": 1}))
    await queue.publish("t", Message({"n": 2}))

    assert await queue.depth("t") == 2


@pytest.mark.clause("IMessageQueue", 6)
async def test_close_ends_every_subscription(queue: InMemoryMessageQueue) -> None:
    async def consume() -> int:
        return len([delivery async for delivery in queue.subscribe("t")])

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await asyncio.sleep(0)
    await queue.close()

    assert await asyncio.wait_for(asyncio.gather(*consumers), 5) == [0, 0]
