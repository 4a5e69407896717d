"""ICache on one Redis: values in one question a tick, a bounded wait, and a script for what has to be one step."""

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from domain.errors import UnavailableError
from domain.features.coherence import Chain, Marker, Outcome, Put, Verdict
from domain.ports.cache import MOST_ROWS, ICache
from infrastructure.caches.breaker import Breaker
from infrastructure.redis_client import RedisAddress, redis_client, redis_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KEYS_AT_A_TIME = 1000
_JITTER = 0.1
_FULL = 0.8
_MARKER = struct.Struct(">16sQQQ")
_CHAIN = struct.Struct(">16sQ")
# What domain/features/coherence.py says, where nothing can come between: `>I8` is unsigned, big endian, eight bytes.
_PUT_NEWER = """
local marker, chain = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not marker or #marker ~= 40 or string.sub(marker, 1, 16) ~= ARGV[1] then return {'moved', marker, chain, 0} end
local seen, pushed, loaded = struct.unpack('>I8I8I8', string.sub(marker, 17))
local snapshot, token, count = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local is_start = token ~= '' and count == 0
if token ~= '' and not is_start then
  if not chain or #chain ~= 24 or string.sub(chain, 1, 16) ~= token then return {'fenced', marker, chain, 0} end
  local counted = struct.unpack('>I8', string.sub(chain, 17))
  if counted == count then return {'ok', marker, chain, 0} end
  if counted ~= count - 1 then return {'fenced', marker, chain, 0} end
end
local mark = ARGV[5] == 'pushed' and pushed or loaded
if ARGV[5] ~= '' and mark < tonumber(ARGV[6]) then return {'behind', marker, chain, mark} end
if token ~= '' then
  chain = token .. struct.pack('>I8', count)
  redis.call('SET', KEYS[2], chain)
end
if is_start then return {'ok', marker, chain, 0} end
for place = 3, #KEYS do
  local value = ARGV[place * 2 + 1]
  local present, is_written = redis.call('GET', KEYS[place]), snapshot >= seen
  if present then is_written = struct.unpack('>I8', value) > struct.unpack('>I8', present) end
  if is_written then redis.call('SET', KEYS[place], value, 'PX', ARGV[place * 2 + 2]) end
end
if ARGV[5] == 'pushed' then pushed = math.max(pushed, snapshot) end
if ARGV[5] == 'loaded' then loaded = math.max(loaded, snapshot) end
marker = ARGV[1] .. struct.pack('>I8I8I8', math.max(seen, snapshot), pushed, loaded)
redis.call('SET', KEYS[1], marker)
return {'ok', marker, chain, 1}
"""
_INSTALL = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


@dataclass
class _Question:
    """What one caller reads."""

    marker: str
    keys: Sequence[str]
    answer: asyncio.Future[tuple[Marker | None, list[bytes | None]]]
    values: list[bytes | None] = field(default_factory=list)
    markers: list[Marker | None] = field(default_factory=list)


@dataclass
class _Chunk:
    """What is asked in one step: each piece of a question with a marker of its own view."""

    keys: list[str] = field(default_factory=list)
    pieces: list[tuple[_Question, int, int]] = field(default_factory=list)

    def add(self, question: _Question, keys: Sequence[str]) -> None:
        self.pieces.append((question, len(self.keys), len(keys)))
        self.keys += (question.marker, *keys)

    def take(self, found: Sequence[bytes | None]) -> None:
        for question, place, count in self.pieces:
            question.markers.append(_marker(found[place]))
            question.values += found[place + 1 : place + 1 + count]


class RedisCache(ICache):
    """Keys as they are given; the chain of a marker stands beside it. Of a primary alone: a replica may be late.

    What is read is waited for `read_seconds`, what is written `write_seconds`. While the server is in trouble nobody
    waits for it, but for one question now and then.
    """

    def __init__(self, address: RedisAddress, *, read_seconds: float = 0.02, write_seconds: float = 0.2) -> None:
        self._address = address
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._breaker = Breaker()
        self._reader: Redis | None = None
        self._writer: Redis | None = None
        self._put_newer: Any = None
        self._install: Any = None
        self._waiting: list[_Question] = []
        self._asking: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self._writer is not None:
            return
        self._reader = self._connect(self._read_seconds)
        self._writer = self._connect(self._write_seconds)
        self._put_newer = self._writer.register_script(_PUT_NEWER)
        self._install = self._writer.register_script(_INSTALL)

    async def close(self) -> None:
        clients, self._reader, self._writer = (self._reader, self._writer), None, None
        for task in tuple(self._asking):
            await task
        for client in clients:
            if client is not None:
                await client.aclose()

    async def health_check(self) -> str | None:
        from redis.exceptions import NoPermissionError

        try:
            client = self._opened(self._writer)
            await client.ping()
            try:
                said = await client.info()
            except NoPermissionError:  # It answers; what else it is, it does not tell this user.
                return None
        except _trouble():
            return "The cache cannot be reached."
        return _trouble_in(said)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        found: list[bytes | None] = await self._done(lambda: self._opened(self._writer).mget(keys))
        return found

    async def set_many(self, items: Mapping[str, bytes], ttl: float = 3600) -> None:
        async def sent() -> None:
            async with self._opened(self._writer).pipeline(transaction=False) as pipeline:
                for key, value in items.items():
                    pipeline.set(key, value, px=_milliseconds(ttl))
                await pipeline.execute()

        await self._done(sent)

    async def delete_many(self, keys: Sequence[str]) -> None:
        if keys:
            await self._done(lambda: self._opened(self._writer).unlink(*keys))

    async def read(self, marker: str, keys: Sequence[str]) -> tuple[Marker | None, list[bytes | None]]:
        loop = asyncio.get_running_loop()
        question = _Question(marker, keys, loop.create_future())
        self._waiting.append(question)
        if len(self._waiting) == 1:  # All that come before the loop turns are asked together.
            loop.call_soon(self._ask, context=Context())
        return await question.answer

    async def put_newer(self, marker: str, put: Put, rows: Mapping[str, bytes], ttl: float = 3600) -> Verdict:
        if len(rows) > MOST_ROWS:
            raise ValueError(f"put_newer takes {MOST_ROWS} rows at a time, not {len(rows)}")
        token, count = (put.chain.token, put.chain.count) if put.chain is not None else (b"", 0)
        kind, since = (put.advance.mark.value, put.advance.since) if put.advance is not None else ("", 0)
        said: list[Any] = [put.generation, put.snapshot, token, count, kind, since]
        for value in rows.values():
            # That all of a load are gone in one moment would be one moment in which the store is asked for all of them.
            said += (value, _milliseconds(ttl * random.uniform(1, 1 + _JITTER)))
        found = await self._done(lambda: self._put_newer(keys=[marker, _chain_of(marker), *rows], args=said))
        outcome = Outcome(found[0].decode())
        mark = found[3] if outcome is Outcome.BEHIND else 0
        takes_rows = outcome is Outcome.OK and found[3] == 1
        return Verdict(outcome, _marker(found[1]), _chain(found[2]), mark, takes_rows)

    async def install(self, marker: str, remembered: Marker | None, new: Marker) -> bool:
        said = [b"" if remembered is None else _packed(remembered), _packed(new)]
        return bool(await self._done(lambda: self._install(keys=[marker], args=said)))

    def _ask(self) -> None:
        questions, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._answer(questions))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answer(self, questions: Sequence[_Question]) -> None:
        if not self._breaker.lets_through(self._read_seconds):
            _refuse(questions)
            return
        chunks = _chunks(questions)
        try:
            client = self._opened(self._reader)
            async with asyncio.timeout(self._read_seconds):
                found = await asyncio.gather(*(client.mget(chunk.keys) for chunk in chunks))
        except _trouble():
            self._breaker.failed()
            _refuse(questions)
            return
        self._breaker.worked()
        for chunk, values in zip(chunks, found, strict=True):
            chunk.take(values)
        for question in questions:
            if not question.answer.done():  # Who was canceled waits no more.
                question.answer.set_result((_oldest(question.markers), question.values))

    async def _done(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """Act, and be done in time or not at all: what is written is written once, however often it is tried."""
        try:
            async with asyncio.timeout(self._write_seconds):
                return await act()
        except redis_errors() as error:
            raise _unavailable() from error

    def _opened(self, client: "Redis | None") -> "Redis":
        if client is None:
            raise _unavailable()
        return client

    def _connect(self, timeout_seconds: float) -> "Redis":
        return redis_client(self._address, "A cache on Redis", timeout_seconds=timeout_seconds, retries=1)


def _trouble() -> tuple[type[Exception], ...]:
    """Errors of a server, or of one that is not open; what takes too long is an OSError."""
    return (UnavailableError, *redis_errors())


def _unavailable() -> UnavailableError:
    return UnavailableError("The cache cannot be reached.", code="cache.unavailable")


def _refuse(questions: Sequence[_Question]) -> None:
    for question in questions:
        if not question.answer.done():
            question.answer.set_exception(_unavailable())


def _chunks(questions: Iterable[_Question]) -> list[_Chunk]:
    chunks = [_Chunk()]
    for question in questions:
        for start in range(0, max(1, len(question.keys)), _KEYS_AT_A_TIME):
            keys = question.keys[start : start + _KEYS_AT_A_TIME]
            if len(chunks[-1].keys) + len(keys) > _KEYS_AT_A_TIME and chunks[-1].keys:
                chunks.append(_Chunk())
            chunks[-1].add(question, keys)
    return chunks


def _oldest(markers: Sequence[Marker | None]) -> Marker | None:
    oldest = markers[0]
    for marker in markers[1:]:
        if oldest is None or marker is None or marker.generation != oldest.generation:
            return None
        oldest = oldest.older(marker)
    return oldest


def _chain_of(marker: str) -> str:
    return f"{marker}:chain"


def _packed(marker: Marker) -> bytes:
    return _MARKER.pack(marker.generation, marker.seen, marker.pushed, marker.loaded)


def _marker(value: bytes | None) -> Marker | None:
    return Marker(*_MARKER.unpack(value)) if value is not None and len(value) == _MARKER.size else None


def _chain(value: bytes | None) -> Chain | None:
    return Chain(*_CHAIN.unpack(value)) if value is not None and len(value) == _CHAIN.size else None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _trouble_in(said: Mapping[str, Any]) -> str | None:
    """What a server tells of itself that a cache cannot be on, or not for long."""
    if said.get("redis_mode") == "cluster":
        return "The cache's Redis is a cluster, and has to be a single primary."
    if said.get("role") == "slave":
        return "The cache's Redis is a replica, and has to be a primary."
    if str(said.get("maxmemory_policy", "")).startswith("allkeys"):
        return "The cache's Redis evicts what has to stay: its maxmemory-policy has to be volatile-lru."
    most, used = int(said.get("maxmemory") or 0), int(said.get("used_memory") or 0)
    if most and used > _FULL * most:
        return f"The cache's Redis is {used / most:.0%} full."
    return None
