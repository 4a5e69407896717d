"""IMessageQueue on a Kafka-protocol broker: keys choose partitions, offsets are committed below the oldest open
message.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from domain.errors import MissingExtraError, UnavailableError
from domain.ports.message_queue import IDelivery, IMessageQueue, Message
from infrastructure.queues.wire import UndecodableError, decode, encode, partition_of, queue_unavailable, raw_message

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

_COMMIT_EVERY_SECONDS = 0.5
_REASON = "reason"


@dataclass(frozen=True)
class KafkaAddress:
    """The brokers, as `host:port,host:port`, and how long to wait for them."""

    bootstrap_servers: str
    timeout_seconds: float = 5.0
    session_timeout_seconds: float = 10.0


class _Offsets:
    """What of each partition is open; the offset to commit is the oldest open one, as Kafka knows no gaps."""

    def __init__(self) -> None:
        self._open: dict[Any, dict[int, bool]] = {}
        self._next: dict[Any, int] = {}

    def took(self, partition: Any, offset: int) -> None:
        self._open.setdefault(partition, {})[offset] = False

    def settled(self, partition: Any, offset: int) -> None:
        taken = self._open.get(partition)
        if taken is None or offset not in taken:
            return  # The partition was given to another consumer meanwhile.
        taken[offset] = True
        while taken and taken[min(taken)]:
            lowest = min(taken)
            del taken[lowest]
            self._next[partition] = lowest + 1

    def forget(self, partitions: Sequence[Any]) -> None:
        for partition in partitions:
            self._open.pop(partition, None)
            self._next.pop(partition, None)

    def take_committable(self) -> dict[Any, int]:
        committable, self._next = self._next, {}
        return committable


class KafkaDelivery(IDelivery):
    """One record of one partition."""

    def __init__(self, queue: "KafkaMessageQueue", offsets: _Offsets, record: Any, message: Message) -> None:
        self._queue = queue
        self._offsets = offsets
        self._record = record
        self._message = message

    @property
    def message(self) -> Message:
        return self._message

    async def acknowledge(self) -> None:
        self._offsets.settled(_partition(self._record), self._record.offset)

    async def reject(self, reason: str) -> None:
        await self._queue.bury(self._record.topic, self._record.value, reason)
        await self.acknowledge()


class KafkaMessageQueue(IMessageQueue):
    """Topics with a fixed number of partitions, made when they are first used; dead letters go to `<topic>.dead`."""

    waits_for_whoever_is_free = False

    def __init__(self, address: KafkaAddress, *, partitions: int = 16, topic_prefix: str = "headrace.") -> None:
        self._address = address
        self._partitions = partitions
        self._prefix = topic_prefix
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._making = asyncio.Lock()
        self._known: set[str] = set()
        self._closing = asyncio.Event()
        self._is_open = False

    async def open(self) -> None:
        """Connect lazily: a broker that is down at the start is told by health and tried again at each use."""
        _aiokafka()
        self._closing = asyncio.Event()
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._closing.set()
        producer, self._producer = self._producer, None
        self._known.clear()
        if producer is not None:
            with suppress(*_errors()):  # What cannot be flushed in time is rung again by the tender.
                async with asyncio.timeout(self._address.timeout_seconds):
                    await producer.stop()

    async def health_check(self) -> str | None:
        try:
            async with asyncio.timeout(self._address.timeout_seconds):
                producer = await self._opened()
                await producer.client.force_metadata_update()
        except _trouble():
            return "The kafka queue cannot be reached."
        return None

    async def publish(self, topic: str, message: Message) -> None:
        partition = partition_of(message.key, self._partitions)
        await self._send(topic, encode(message), partition=partition)

    async def subscribe(self, topic: str) -> AsyncGenerator[IDelivery, None]:
        consumer, offsets = await self._consumer(topic)
        closing = asyncio.create_task(self._closing.wait())
        committing = asyncio.create_task(_commit_regularly(consumer, offsets))
        turns: deque[Any] = deque()
        try:
            while not self._closing.is_set():
                taking = asyncio.create_task(_take(consumer, turns))
                await asyncio.wait({taking, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    await asyncio.wait({taking})
                    return
                record = taking.result()
                if record is None:
                    continue
                offsets.took(_partition(record), record.offset)
                try:
                    message = decode(record.value or b"")
                except UndecodableError as error:
                    await self.bury(record.topic, record.value or b"", error.message)
                    offsets.settled(_partition(record), record.offset)
                    continue
                yield KafkaDelivery(self, offsets, record, message)
        except _errors() as error:
            raise queue_unavailable("kafka") from error
        finally:
            closing.cancel()
            committing.cancel()
            await asyncio.wait({committing})
            with suppress(*_errors()):  # Uncommitted offsets are delivered again, which is harmless.
                async with asyncio.timeout(self._address.timeout_seconds):
                    await _commit(consumer, offsets)
            with suppress(*_errors()):
                async with asyncio.timeout(self._address.timeout_seconds):
                    await consumer.stop()

    async def depth(self, topic: str) -> int:
        aiokafka = _aiokafka()
        await self._ensure(topic)
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._address.bootstrap_servers,
            group_id=self._prefix + topic,
            enable_auto_commit=False,
            request_timeout_ms=int(self._address.timeout_seconds * 1000),
        )
        name = self._prefix + topic
        try:
            async with asyncio.timeout(self._address.timeout_seconds * 2):
                await consumer.start()
                partitions = [aiokafka.TopicPartition(name, number) for number in range(self._partitions)]
                ends = await consumer.end_offsets(partitions)
                waiting = 0
                for partition in partitions:
                    waiting += ends[partition] - (await consumer.committed(partition) or 0)
                return waiting
        except _errors() as error:
            raise queue_unavailable("kafka") from error
        finally:
            await consumer.stop()

    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        aiokafka = _aiokafka()
        await self._ensure(topic)
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._address.bootstrap_servers,
            enable_auto_commit=False,
            request_timeout_ms=int(self._address.timeout_seconds * 1000),
        )
        partition = aiokafka.TopicPartition(f"{self._prefix}{topic}.dead", 0)
        found: list[tuple[Message, str]] = []
        try:
            async with asyncio.timeout(self._address.timeout_seconds * 2):
                await consumer.start()
                consumer.assign([partition])
                await consumer.seek_to_beginning(partition)
                end = (await consumer.end_offsets([partition]))[partition]
                while await consumer.position(partition) < end:
                    for records in (await consumer.getmany(partition, timeout_ms=500)).values():
                        found += [_dead(record) for record in records]
        except _errors() as error:
            raise queue_unavailable("kafka") from error
        finally:
            await consumer.stop()
        return found

    async def bury(self, name: str, content: bytes, reason: str) -> None:
        """Put a record into the dead letters of its topic."""
        await self._send(
            f"{name.removeprefix(self._prefix)}.dead", content, partition=0, headers=[(_REASON, reason.encode())]
        )

    async def _send(
        self, topic: str, content: bytes, *, partition: int, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        try:
            async with asyncio.timeout(self._address.timeout_seconds):
                await self._ensure(topic.removesuffix(".dead"))
                producer = await self._opened()
                await producer.send_and_wait(self._prefix + topic, content, partition=partition, headers=headers or [])
        except _errors() as error:
            self._known.discard(topic.removesuffix(".dead"))  # Should the broker have lost it, it is made again.
            raise queue_unavailable("kafka") from error

    async def _consumer(self, topic: str) -> tuple["AIOKafkaConsumer", _Offsets]:
        aiokafka = _aiokafka()
        if not self._is_open:
            raise queue_unavailable("kafka")
        await self._ensure(topic)
        offsets = _Offsets()

        class Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc,name-defined]
            async def on_partitions_revoked(self, revoked: Any) -> None:
                with suppress(*_errors()):  # Whoever owns the partition now gets the message again.
                    await _commit(consumer, offsets)
                offsets.forget(list(revoked))

            async def on_partitions_assigned(self, assigned: Any) -> None:
                del assigned

        session_ms = int(self._address.session_timeout_seconds * 1000)
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._address.bootstrap_servers,
            group_id=self._prefix + topic,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(100, session_ms // 4),
            rebalance_timeout_ms=session_ms,
            max_poll_interval_ms=24 * 3600 * 1000,
            request_timeout_ms=int(self._address.timeout_seconds * 1000) + session_ms,
            metadata_max_age_ms=30_000,
        )
        consumer.subscribe([self._prefix + topic], listener=Listener())
        try:
            await consumer.start()
        except BaseException as error:
            # Cancelled half-way it would stay a member of the group, and keep partitions that nobody reads.
            await consumer.stop()
            if isinstance(error, _errors()):
                raise queue_unavailable("kafka") from error
            raise
        return consumer, offsets

    async def _ensure(self, topic: str) -> None:
        """Make a topic and its dead letters if they are not there.

        One at a time: a broker may take a second creation for a new topic, and drop what was sent to the first.
        """
        async with self._making:
            if topic not in self._known:
                await self._make(topic)
                self._known.add(topic)

    async def _make(self, topic: str) -> None:
        aiokafka = _aiokafka()
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(
            bootstrap_servers=self._address.bootstrap_servers,
            request_timeout_ms=int(self._address.timeout_seconds * 1000),
        )
        try:
            await admin.start()
            existing = set(await admin.list_topics())
            wanted = {self._prefix + topic: self._partitions, f"{self._prefix}{topic}.dead": 1}
            missing = [NewTopic(name, number, 1) for name, number in wanted.items() if name not in existing]
            if missing:
                with suppress(aiokafka.errors.TopicAlreadyExistsError):
                    await admin.create_topics(missing)
        except _errors() as error:
            raise queue_unavailable("kafka") from error
        finally:
            await admin.close()

    async def _opened(self) -> "AIOKafkaProducer":
        if not self._is_open:
            raise queue_unavailable("kafka")
        async with self._opening:
            if self._producer is None:
                producer = _aiokafka().AIOKafkaProducer(
                    bootstrap_servers=self._address.bootstrap_servers,
                    acks="all",
                    request_timeout_ms=int(self._address.timeout_seconds * 1000),
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


async def _take(consumer: "AIOKafkaConsumer", turns: deque[Any]) -> Any:
    """One record; the partitions that this consumer has take turns."""
    assigned = consumer.assignment()
    for partition in assigned - set(turns):
        turns.append(partition)
    for _ in range(len(turns)):
        partition = turns.popleft()
        if partition not in assigned:
            continue
        turns.append(partition)
        found = await consumer.getmany(partition, timeout_ms=0, max_records=1)
        for records in found.values():
            if records:
                return records[0]
    found = await consumer.getmany(timeout_ms=200, max_records=1)
    return next((records[0] for records in found.values() if records), None)


async def _commit_regularly(consumer: "AIOKafkaConsumer", offsets: _Offsets) -> None:
    while True:
        await asyncio.sleep(_COMMIT_EVERY_SECONDS)
        with suppress(*_errors()):  # Tried again with what is settled by then.
            await _commit(consumer, offsets)


async def _commit(consumer: "AIOKafkaConsumer", offsets: _Offsets) -> None:
    committable = offsets.take_committable()
    if committable:
        await consumer.commit(committable)


def _partition(record: Any) -> Any:
    return _aiokafka().TopicPartition(record.topic, record.partition)


def _dead(record: Any) -> tuple[Message, str]:
    reason = dict(record.headers).get(_REASON, b"").decode(errors="replace")
    try:
        return decode(record.value or b""), reason
    except UndecodableError:
        return raw_message(record.value or b""), reason


def _aiokafka() -> Any:
    try:
        import aiokafka
        import aiokafka.errors
    except ModuleNotFoundError as error:
        raise MissingExtraError("kafka", "A queue on Kafka") from error
    return aiokafka


def _errors() -> tuple[type[Exception], ...]:
    """Errors that mean trouble with the broker."""
    try:
        from aiokafka.errors import KafkaError
    except ModuleNotFoundError:
        return (TimeoutError, OSError)
    return (KafkaError, TimeoutError, OSError)


def _trouble() -> tuple[type[Exception], ...]:
    """The same, or that the queue is not open."""
    return (UnavailableError, *_errors())
