"""IMessageQueue on Redis Streams: one stream per partition, a consumer group, orphans claimed by who is alive (Q3)."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from domain.errors import UnavailableError
from domain.ports.message_queue import IDelivery, IMessageQueue, Message
from infrastructure.queues.wire import UndecodableError, decode, encode, partition_of, queue_unavailable, raw_message
from infrastructure.redis_client import RedisAddress, redis_client, redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

_GROUP = b"headrace"
_FIELD = b"message"
_PREFIX = "headrace"
_BLOCK_SECONDS = 1.0
_MAX_DEAD = 10_000

_PUBLISH = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return false end
return redis.call('XADD', KEYS[1], '*', 'message', ARGV[1])
"""
# One entry from the first partition that has any, so that a busy consumer never holds what another could take.
_TAKE = """
for index, key in ipairs(KEYS) do
  local found = redis.call('XREADGROUP', 'GROUP', 'headrace', ARGV[1], 'COUNT', 1, 'STREAMS', key, '>')
  if found and found[1] and found[1][2][1] then return {key, found[1][2][1][1], found[1][2][1][2]} end
end
return false
"""
# Give back what this consumer took and did not settle; forget its name only once nothing of its is pending.
_HAND_BACK = """
local pending = redis.call('XPENDING', KEYS[1], 'headrace', '-', '+', 1000, ARGV[1])
for _, entry in ipairs(pending) do
  local found = redis.call('XRANGE', KEYS[1], entry[1], entry[1])
  if found[1] then redis.call('XADD', KEYS[1], '*', unpack(found[1][2])) end
  redis.call('XACK', KEYS[1], 'headrace', entry[1])
  redis.call('XDEL', KEYS[1], entry[1])
end
if #redis.call('XPENDING', KEYS[1], 'headrace', '-', '+', 1, ARGV[1]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'headrace', ARGV[1])
end
return #pending
"""


class RedisDelivery(IDelivery):
    """One entry that this consumer took."""

    def __init__(self, queue: "RedisStreamsMessageQueue", topic: str, stream: bytes, entry: bytes, message: Message):
        self._queue = queue
        self._topic = topic
        self._stream = stream
        self._entry = entry
        self._message = message

    @property
    def message(self) -> Message:
        return self._message

    async def acknowledge(self) -> None:
        await self._queue.settle(self._stream, self._entry)

    async def reject(self, reason: str) -> None:
        await self._queue.bury(self._topic, self._stream, self._entry, encode(self._message), reason)


class RedisStreamsMessageQueue(IMessageQueue):
    """Streams `headrace:<topic>:<partition>`; entries are deleted once settled, so the streams hold what is to be done.

    `redelivery_seconds` is how long an entry of a consumer that died stays with it.
    """

    waits_for_whoever_is_free = True

    def __init__(
        self,
        address: RedisAddress,
        *,
        partitions: int = 16,
        max_depth: int = 100_000,
        redelivery_seconds: float = 30.0,
    ) -> None:
        self._address = address
        self._partitions = partitions
        self._max_depth = max_depth
        self._redelivery_seconds = redelivery_seconds
        self._client: Redis | None = None
        self._closing = asyncio.Event()

    async def open(self) -> None:
        if self._client is None:
            self._closing = asyncio.Event()
            self._client = self._connect(self._address.timeout_seconds)

    async def close(self) -> None:
        self._closing.set()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def health_check(self) -> str | None:
        try:
            await self._opened().ping()
        except _trouble():
            return "The redis queue cannot be reached."
        return None

    async def publish(self, topic: str, message: Message) -> None:
        stream = self._streams(topic)[partition_of(message.key, self._partitions)]
        bound = max(1, self._max_depth // self._partitions)
        try:
            added = await self._opened().register_script(_PUBLISH)(keys=[stream], args=[encode(message), bound])
        except redis_errors() as error:
            raise queue_unavailable("redis") from error
        if added is None:
            raise UnavailableError("The redis queue is full.", code="queue.full")

    async def subscribe(self, topic: str) -> AsyncGenerator[IDelivery, None]:
        self._opened()
        client = self._connect(_BLOCK_SECONDS + self._address.timeout_seconds)
        consumer = secrets.token_hex(8)
        streams = deque(self._streams(topic))
        closing = asyncio.create_task(self._closing.wait())
        loop = asyncio.get_running_loop()
        claim_at = 0.0
        try:
            await self._create_groups(client, streams)
            while not self._closing.is_set():
                entries: Sequence[tuple[bytes, bytes, bytes]] = ()
                if loop.time() >= claim_at:
                    entries = await self._orphans(client, streams, consumer)
                    claim_at = loop.time() + self._redelivery_seconds / 2
                if not entries:
                    taking = asyncio.create_task(self._take(client, streams, consumer))
                    await asyncio.wait({taking, closing}, return_when=asyncio.FIRST_COMPLETED)
                    if not taking.done():
                        taking.cancel()
                        await asyncio.wait({taking})
                        return
                    entries = taking.result()
                for stream, entry, content in entries:
                    try:
                        message = decode(content)
                    except UndecodableError as error:
                        await self.bury(topic, stream, entry, content, error.message)
                        continue
                    yield RedisDelivery(self, topic, stream, entry, message)
        except redis_errors() as error:
            raise queue_unavailable("redis") from error
        finally:
            closing.cancel()
            with suppress(*redis_errors()):  # A broker that is gone gives its entries to others by their idle time.
                for stream in streams:
                    await client.register_script(_HAND_BACK)(keys=[stream], args=[consumer])
            await client.aclose()

    async def depth(self, topic: str) -> int:
        streams = self._streams(topic)
        try:
            async with self._opened().pipeline(transaction=False) as pipeline:
                for stream in streams:
                    pipeline.xlen(stream)
                    pipeline.xpending(stream, _GROUP)
                answers = await pipeline.execute(raise_on_error=False)
        except redis_errors() as error:
            raise queue_unavailable("redis") from error
        lengths = sum(answer for answer in answers[::2] if isinstance(answer, int))
        pending = sum(answer["pending"] for answer in answers[1::2] if isinstance(answer, dict))
        return max(0, lengths - int(pending))

    async def dead_letters(self, topic: str) -> list[tuple[Message, str]]:
        try:
            entries = await self._opened().xrange(f"{_PREFIX}:{topic}:dead")
        except redis_errors() as error:
            raise queue_unavailable("redis") from error
        found = []
        for _, fields in entries:
            try:
                message = decode(_content(fields))
            except UndecodableError:
                message = raw_message(_content(fields))
            found.append((message, fields.get(b"reason", b"").decode(errors="replace")))
        return found

    async def settle(self, stream: bytes, entry: bytes) -> None:
        """Acknowledge and delete one entry."""
        try:
            async with self._opened().pipeline(transaction=True) as pipeline:
                pipeline.xack(stream, _GROUP, entry)
                pipeline.xdel(stream, entry)
                await pipeline.execute()
        except redis_errors() as error:
            raise queue_unavailable("redis") from error

    async def bury(self, topic: str, stream: bytes, entry: bytes, content: bytes, reason: str) -> None:
        """Move one entry to the dead letters."""
        try:
            async with self._opened().pipeline(transaction=True) as pipeline:
                pipeline.xadd(
                    f"{_PREFIX}:{topic}:dead", {_FIELD: content, b"reason": reason.encode()}, maxlen=_MAX_DEAD
                )
                pipeline.xack(stream, _GROUP, entry)
                pipeline.xdel(stream, entry)
                await pipeline.execute()
        except redis_errors() as error:
            raise queue_unavailable("redis") from error

    async def _take(
        self, client: "Redis", streams: deque[bytes], consumer: str
    ) -> Sequence[tuple[bytes, bytes, bytes]]:
        """Take one entry, the partitions in turn; wait for one if there is none."""
        from redis.exceptions import ResponseError

        try:
            found = await client.register_script(_TAKE)(keys=list(streams), args=[consumer])
            if found:
                stream, entry, fields = found
                # The next look begins behind the partition that was served.
                streams.rotate(-(streams.index(stream) + 1))
                return [(stream, entry, _content(dict(zip(fields[::2], fields[1::2], strict=True))))]
            waited = await client.xreadgroup(
                _GROUP, consumer, dict.fromkeys(streams, ">"), count=1, block=int(_BLOCK_SECONDS * 1000)
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            await self._create_groups(client, streams)  # Flushed: from 0, so that nothing published since is missed.
            return ()
        return [(stream, entry, _content(fields)) for stream, entries in waited or () for entry, fields in entries]

    async def _orphans(
        self, client: "Redis", streams: Sequence[bytes], consumer: str
    ) -> Sequence[tuple[bytes, bytes, bytes]]:
        """Claim what a dead consumer left, a few at a time."""
        from redis.exceptions import ResponseError

        found = []
        for stream in list(streams):
            try:
                answer: Any = await client.xautoclaim(
                    stream, _GROUP, consumer, min_idle_time=int(self._redelivery_seconds * 1000), count=4
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                await self._create_groups(client, [stream])
                continue
            found += [(stream, entry, _content(fields)) for entry, fields in answer[1] if fields]
        return found

    async def _create_groups(self, client: "Redis", streams: Sequence[bytes]) -> None:
        from redis.exceptions import ResponseError

        for stream in list(streams):
            try:
                await client.xgroup_create(stream, _GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def _streams(self, topic: str) -> list[bytes]:
        return [f"{_PREFIX}:{topic}:{number}".encode() for number in range(self._partitions)]

    def _opened(self) -> "Redis":
        if self._client is None:
            raise queue_unavailable("redis")
        return self._client

    def _connect(self, timeout_seconds: float) -> "Redis":
        # A doorbell that does not ring is rung again by the tender.
        return redis_client(self._address, "A queue on Redis", timeout_seconds=timeout_seconds, retries=1)


def _content(fields: Mapping[bytes, bytes]) -> bytes:
    """The message of an entry; an entry of somebody else's has none, and is kept as what stands in it."""
    if _FIELD in fields:
        return fields[_FIELD]
    return b"no message: " + b", ".join(name + b"=" + value for name, value in fields.items())


def _trouble() -> tuple[type[Exception], ...]:
    """The same, or that the queue is not open."""
    return (UnavailableError, *redis_errors())
