"""One suite for every IMessageQueue, on real servers."""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from domain.errors import UnavailableError
from domain.ports.message_queue import IDelivery, IMessageQueue, Message
from infrastructure.queues.kafka import KafkaAddress, KafkaMessageQueue
from infrastructure.queues.memory import InMemoryMessageQueue
from infrastructure.queues.redis_streams import RedisStreamsMessageQueue
from infrastructure.queues.wire import partition_of
from infrastructure.redis_client import RedisAddress

PARTITIONS = 4
BOUND = 30
REDELIVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Broker:
    """How to build queues that share one broker. A quirk says what the broker cannot do, and why."""

    name: str
    build: Callable[[], IMessageQueue]
    broken: Callable[[], IMessageQueue]
    no_bound: str | None = None
    no_other_process: str | None = None


@pytest.fixture(params=["memory", "redis", "kafka"])
def broker(request: pytest.FixtureRequest) -> Broker:
    match request.param:
        case "memory":
            shared = InMemoryMessageQueue(max_depth=BOUND * PARTITIONS)
            only = "it lives in one process and knows its messages as they are"
            return Broker("memory", lambda: shared, InMemoryMessageQueue, no_other_process=only)
        case "redis":
            host, port = request.getfixturevalue("redis_address")
            return Broker(
                "redis",
                lambda: RedisStreamsMessageQueue(
                    RedisAddress(host, port),
                    partitions=PARTITIONS,
                    max_depth=BOUND * PARTITIONS,
                    redelivery_seconds=REDELIVERY_SECONDS,
                ),
                lambda: RedisStreamsMessageQueue(RedisAddress("127.0.0.1", 1, timeout_seconds=0.5)),
            )
        case _:
            servers = request.getfixturevalue("kafka_servers")
            return Broker(
                "kafka",
                lambda: KafkaMessageQueue(KafkaAddress(servers, session_timeout_seconds=2.0), partitions=PARTITIONS),
                lambda: KafkaMessageQueue(KafkaAddress("127.0.0.1:1", timeout_seconds=0.5)),
                no_bound="a log is bounded by its retention, not by what waits",
            )


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[IMessageQueue]:
    built = broker.build()
    await built.open()
    yield built
    await built.close()


@pytest.fixture
def topic() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


async def take(queue: IMessageQueue, topic: str, count: int = 1) -> list[IDelivery]:
    """Take and acknowledge some messages with one subscription."""
    subscription = queue.subscribe(topic)
    found = []
    async with asyncio.timeout(30):
        for _ in range(count):
            delivery = await anext(subscription)
            await delivery.acknowledge()
            found.append(delivery)
    await subscription.aclose()
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def depth_becomes(queue: IMessageQueue, topic: str, expected: int) -> bool:
    async with asyncio.timeout(20):
        while await queue.depth(topic) != expected:
            await asyncio.sleep(0.05)
    return True


@pytest.mark.clause("IMessageQueue", 1)
async def test_message_reaches_one_consumer(queue: IMessageQueue, topic: str) -> None:
    got: list[tuple[str, object, dict[str, str]]] = []

    async def consume(name: str) -> None:
        async for delivery in queue.subscribe(topic):
            got.append((name, delivery.message.body["n"], dict(delivery.message.headers)))
            await delivery.acknowledge()

    for number in range(6):
        await queue.publish(topic, Message({"n": number}, {"traceparent": "00-1"}, key=f"k{number}"))
    consumers = [asyncio.create_task(consume(name)) for name in "ab"]
    await until(lambda: len(got) >= 6)
    assert await depth_becomes(queue, topic, 0)
    await queue.close()
    await asyncio.wait_for(asyncio.gather(*consumers), 20)

    assert sorted(number for _, number, _ in got) == [0, 1, 2, 3, 4, 5]
    assert all(headers == {"traceparent": "00-1"} for _, _, headers in got)


@pytest.mark.clause("IMessageQueue", 2)
@pytest.mark.invariant("Q2", "Q3")
async def test_unsettled_message_is_delivered_again(queue: IMessageQueue, topic: str) -> None:
    await queue.publish(topic, Message({"n": 1}))
    first = queue.subscribe(topic)
    async with asyncio.timeout(30):
        await anext(first)
    await first.aclose()

    again = await take(queue, topic)

    assert again[0].message.body == {"n": 1}
    assert await depth_becomes(queue, topic, 0)


DYING = """
import asyncio, os, signal, sys
from infrastructure.queues.kafka import KafkaAddress, KafkaMessageQueue
from infrastructure.queues.redis_streams import RedisStreamsMessageQueue
from infrastructure.redis_client import RedisAddress

async def main(kind, address, topic):
    host, port = address.split(":")
    queue = (
        RedisStreamsMessageQueue(RedisAddress(host, int(port)), partitions=4)
        if kind == "redis"
        else KafkaMessageQueue(KafkaAddress(address, session_timeout_seconds=2.0), partitions=4)
    )
    await queue.open()
    await anext(queue.subscribe(topic))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.clause("IMessageQueue", 2)
@pytest.mark.invariant("Q3")
async def test_message_of_a_consumer_that_was_killed_is_delivered_to_another(
    broker: Broker, queue: IMessageQueue, topic: str
) -> None:
    if broker.no_other_process:
        assert isinstance(queue, InMemoryMessageQueue)
        return
    await queue.publish(topic, Message({"n": 1}))
    address = queue._address  # type: ignore[attr-defined]
    place = getattr(address, "bootstrap_servers", None) or f"{address.host}:{address.port}"
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, broker.name, place, topic)
    assert await asyncio.wait_for(dead.wait(), 30) == -9

    found = await take(queue, topic)

    assert found[0].message.body == {"n": 1}


@pytest.mark.clause("IMessageQueue", 3)
async def test_rejected_message_is_a_dead_letter_with_its_reason(queue: IMessageQueue, topic: str) -> None:
    await queue.publish(topic, Message({"n": 1}))
    subscription = queue.subscribe(topic)
    async with asyncio.timeout(30):
        await (await anext(subscription)).reject("not a run")
    await subscription.aclose()

    assert await queue.dead_letters(topic) == [(Message({"n": 1}), "not a run")]
    assert await depth_becomes(queue, topic, 0)


@pytest.mark.clause("IMessageQueue", 4)
async def test_full_closed_or_unreachable_queue_refuses(broker: Broker, queue: IMessageQueue, topic: str) -> None:
    if broker.no_bound is None:
        with pytest.raises(UnavailableError) as full:
            for number in range(BOUND * PARTITIONS + 1):
                await queue.publish(topic, Message({"n": number}, key="one"))
        assert full.value.code == "queue.full"
    await queue.publish(f"{topic}-other", Message({"n": 0}))
    await queue.close()
    with pytest.raises(UnavailableError):
        await queue.publish(topic, Message({"n": 3}))
    assert await queue.health_check() is not None

    broken = broker.broken()
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(10):
            await broken.open()
            if broker.no_other_process:
                await broken.close()
            await broken.publish(topic, Message({"n": 3}))
    assert await broken.health_check() is not None
    await broken.close()


@pytest.mark.clause("IMessageQueue", 5)
async def test_depth_counts_what_waits(queue: IMessageQueue, topic: str) -> None:
    assert await queue.depth(topic) == 0
    await queue.publish(topic, Message({"n": 1}))
    await queue.publish(topic, Message({"n": 2}, key="b"))

    assert await queue.depth(topic) == 2
    await take(queue, topic)
    assert await depth_becomes(queue, topic, 1)


@pytest.mark.clause("IMessageQueue", 6)
async def test_close_ends_every_subscription(broker: Broker, topic: str) -> None:
    queue = broker.build()
    await queue.open()

    async def consume() -> int:
        return len([delivery async for delivery in queue.subscribe(topic)])

    consumers = [asyncio.create_task(consume()) for _ in range(2)]
    await asyncio.sleep(0.2)
    await queue.close()

    assert await asyncio.wait_for(asyncio.gather(*consumers), 20) == [0, 0]
    await queue.open()  # And it can be opened again.
    await queue.publish(topic, Message({"n": 1}))
    assert (await take(queue, topic))[0].message.body == {"n": 1}
    await queue.close()


@pytest.mark.clause("IMessageQueue", 7)
async def test_backlog_of_one_key_does_not_hold_up_another(queue: IMessageQueue, topic: str) -> None:
    other = next(f"k{n}" for n in range(100) if partition_of(f"k{n}", PARTITIONS) != partition_of("busy", PARTITIONS))
    for number in range(20):
        await queue.publish(topic, Message({"n": number}, key="busy"))
    await queue.publish(topic, Message({"n": 99}, key=other))

    order = [delivery.message.body["n"] for delivery in await take(queue, topic, 21)]

    assert order.index(99) < 10
    assert [number for number in order if number != 99] == list(range(20))


@pytest.mark.clause("IMessageQueue", 8)
@pytest.mark.invariant("Q4")
async def test_undecodable_message_is_a_dead_letter_and_the_next_one_arrives(
    broker: Broker, queue: IMessageQueue, topic: str
) -> None:
    bad = [b"\x80\x04\x95pickle", b"[1]", b'{"body": 3}', b"[" * 100_000, b""]
    if isinstance(queue, RedisStreamsMessageQueue):
        for content in bad:
            await queue._opened().xadd(f"headrace:{topic}:0", {"message": content})
        for fields in ({"other": b"x"}, {"Message": b"{}", "\xff": b"\xff"}):
            await queue._opened().xadd(f"headrace:{topic}:0", fields)  # type: ignore[arg-type]
            bad.append(b"no message")
    elif isinstance(queue, KafkaMessageQueue):
        for content in bad:
            await queue._send(topic, content, partition=0)
        producer = await queue._opened()
        await producer.send_and_wait(queue._prefix + topic, None, key=b"deleted", partition=0)
        bad.append(b"")
    else:
        subscription = queue.subscribe(topic)
        await queue.publish(topic, Message({"raw": "x"}))
        await (await anext(subscription)).reject("the message is not JSON")
        await subscription.aclose()
        bad = bad[:1]
    await queue.publish(topic, Message({"n": 1}))

    assert (await take(queue, topic))[0].message.body == {"n": 1}
    letters = await queue.dead_letters(topic)
    assert len(letters) == len(bad)
    assert all(reason.startswith("the message") for _, reason in letters)
    assert "raw" in letters[0][0].body


@pytest.mark.clause("IMessageQueue", 9)
@pytest.mark.invariant("Q1")
async def test_topic_that_the_broker_lost_is_made_again(broker: Broker, queue: IMessageQueue, topic: str) -> None:
    subscription = queue.subscribe(topic)
    waiting = asyncio.create_task(anext(subscription))
    await asyncio.sleep(0.3)
    if isinstance(queue, RedisStreamsMessageQueue):
        keys = await queue._opened().keys(f"headrace:{topic}:*")
        assert keys
        await queue._opened().delete(*keys)
    elif isinstance(queue, InMemoryMessageQueue):
        queue._topics[topic].by_key.clear()
    else:
        from aiokafka.admin import AIOKafkaAdminClient

        waiting.cancel()
        await asyncio.wait({waiting})
        await subscription.aclose()
        admin = AIOKafkaAdminClient(bootstrap_servers=queue._address.bootstrap_servers)  # type: ignore[attr-defined]
        await admin.start()
        await admin.delete_topics([f"headrace.{topic}"])
        await admin.close()
        queue._known.clear()  # type: ignore[attr-defined]
        subscription = queue.subscribe(topic)
        waiting = asyncio.create_task(anext(subscription))

    await queue.publish(topic, Message({"n": 7}))

    async with asyncio.timeout(30):
        delivery = await waiting
    assert delivery.message.body == {"n": 7}
    await delivery.acknowledge()
    await subscription.aclose()
