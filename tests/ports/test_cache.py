"""One suite for every ICache, on a real server."""

import asyncio
import itertools
import random
import re
import signal
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from domain.errors import UnavailableError
from domain.features.coherence import Advance, Chain, Mark, Marker, Outcome, Put
from domain.ports.cache import MOST_ROWS, ICache
from infrastructure.caches.memory import InMemoryCache
from infrastructure.caches.redis import RedisCache
from infrastructure.redis_client import RedisAddress
from tests.fakes.clock import FakeClock
from tests.servers import RedisServer

GENERATION, OTHER, TOKEN = b"g" * 16, b"o" * 16, b"t" * 16
PATIENT = {"read_seconds": 5.0, "write_seconds": 5.0}


@dataclass
class Backend:
    """A cache, how to let time pass in it, and names that nobody else uses."""

    cache: ICache
    wait: Callable[[float], Awaitable[None]]
    prefix: str

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    @property
    def marker(self) -> str:
        return self.key("marker")

    async def put(self, put: Put, **rows: int) -> Outcome:
        """Put values that say of what publication they are."""
        values = {self.key(name): value(number) for name, number in rows.items()}
        return (await self.cache.put_newer(self.marker, put, values)).outcome

    async def standing(self, *names: str) -> list[int | None]:
        _, found = await self.cache.read(self.marker, [self.key(name) for name in names])
        return [None if each is None else struct.unpack_from(">Q", each)[0] for each in found]

    async def mark(self) -> Marker:
        marker, _ = await self.cache.read(self.marker, [])
        assert marker is not None
        return marker


def value(publication: int) -> bytes:
    return struct.pack(">Q", publication) + b"value"


@pytest.fixture(params=["memory", "redis"])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    if request.param == "memory":
        clock = FakeClock()

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        found = Backend(InMemoryCache(clock), advance, "test")
    else:
        cache = RedisCache(RedisAddress(*request.getfixturevalue("redis_address")), **PATIENT)
        found = Backend(cache, asyncio.sleep, f"test:{uuid.uuid4().hex}")
    await found.cache.open()
    yield found
    await found.cache.close()


@pytest.fixture
async def begun(backend: Backend) -> Backend:
    """A cache with a marker at publication 10."""
    assert await backend.cache.install(backend.marker, None, Marker(GENERATION, 10, 10, 10))
    return backend


@pytest.mark.clause("ICache", 1)
async def test_absent_deleted_and_expired_are_none(backend: Backend) -> None:
    a, b, c = backend.key("a"), backend.key("b"), backend.key("c")
    await backend.cache.set_many({a: b"1", b: b"2"})
    await backend.cache.set(c, b"3", ttl=0.05)
    await backend.cache.delete(a)
    await backend.cache.delete_many([backend.key("never"), a])
    await backend.cache.delete_many([])
    await backend.wait(0.1)

    assert await backend.cache.get(backend.key("never")) is None
    assert await backend.cache.get_many([a, b, c]) == [None, b"2", None]
    assert await backend.cache.get_many([]) == []


@pytest.mark.clause("ICache", 2)
async def test_many_values_come_in_the_order_of_the_keys(backend: Backend) -> None:
    a, b, x = backend.key("a"), backend.key("b"), backend.key("x")
    await backend.cache.set_many({a: b"1", b: b"\x00\xff"}, ttl=60)

    assert await backend.cache.get_many([b, x, a]) == [b"\x00\xff", None, b"1"]


@pytest.mark.clause("ICache", 3)
async def test_value_expires_after_its_time_and_not_before(begun: Backend) -> None:
    a, b = begun.key("a"), begun.key("b")
    await begun.cache.set(a, b"1", ttl=60)
    await begun.cache.put_newer(begun.marker, Put(GENERATION, 10), {b: value(1)}, ttl=60)
    assert await begun.cache.get_many([a, b]) == [b"1", value(1)]

    await begun.cache.set(a, b"2", ttl=0.05)
    await begun.cache.put_newer(begun.marker, Put(GENERATION, 11), {b: value(11)}, ttl=0.05)
    await begun.wait(0.2)

    assert await begun.cache.get_many([a, b]) == [None, None]


@pytest.mark.clause("ICache", 4)
@pytest.mark.parametrize("_kind", ["memory"])
async def test_what_was_not_used_for_long_goes_first_and_markers_never(_kind: str) -> None:
    cache = InMemoryCache(FakeClock(), max_entries=3)
    assert await cache.install("m", None, Marker(GENERATION, 1, 1, 1))
    await cache.set_many({"a": b"1", "b": b"2", "c": b"3"})
    await cache.get("a")
    await cache.set("d", b"4")

    assert await cache.get_many(["a", "b", "c", "d"]) == [b"1", None, b"3", b"4"]
    assert (await cache.read("m", []))[0] == Marker(GENERATION, 1, 1, 1)


@pytest.mark.clause("ICache", 4)
@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru"], ids=lambda policy: f"redis-{policy}")
async def test_redis_that_evicts_what_has_to_stay_is_named(policy: str) -> None:
    server = RedisServer()
    server.start()
    try:
        server.command("CONFIG", "SET", "maxmemory-policy", policy)
        cache = RedisCache(RedisAddress("127.0.0.1", server.port), **PATIENT)
        await cache.open()
        assert await cache.install("m", None, Marker(GENERATION, 1, 1, 1))
        trouble = await cache.health_check()
        filler = {f"f:{number}": bytes(1_000_000) for number in range(300)}
        for start in range(0, 300, 10):
            await cache.set_many(dict(itertools.islice(filler.items(), start, start + 10)))
        marker, _ = await cache.read("m", [])
        full = await cache.health_check()
        await cache.close()
    finally:
        server.stop()

    if policy == "volatile-lru":
        assert (trouble, marker) == (None, Marker(GENERATION, 1, 1, 1))
        assert full is not None
        assert re.fullmatch(r"The cache's Redis is (9[0-9]|100)% full.", full)
    else:
        assert trouble == "The cache's Redis evicts what has to stay: its maxmemory-policy has to be volatile-lru."


@pytest.mark.clause("ICache", 5)
async def test_closed_cache_can_be_opened_again(backend: Backend) -> None:
    await backend.cache.open()
    await backend.cache.close()
    await backend.cache.close()
    await backend.cache.open()

    assert await backend.cache.health_check() is None
    await backend.cache.set(backend.key("a"), b"1")
    assert await backend.cache.get(backend.key("a")) == b"1"


@pytest.mark.clause("ICache", 6)
async def test_nothing_is_written_beside_another_generation(begun: Backend) -> None:
    assert await begun.put(Put(OTHER, 11), a=11) is Outcome.MOVED
    assert await begun.put(Put(GENERATION, 10), a=1) is Outcome.OK
    assert await begun.standing("a") == [1]


@pytest.mark.clause("ICache", 6)
async def test_value_is_replaced_only_by_one_of_a_later_publication(begun: Backend) -> None:
    for number in (2**40, 2**32 + 1, 255, 256, 2**40 + 1, 2**40):
        assert await begun.put(Put(GENERATION, 2**41), a=number) is Outcome.OK
    assert await begun.standing("a") == [2**40 + 1]


@pytest.mark.clause("ICache", 6)
async def test_what_is_absent_is_made_only_by_who_has_read_as_much_as_anybody(begun: Backend) -> None:
    assert await begun.put(Put(GENERATION, 12), a=12) is Outcome.OK
    assert await begun.put(Put(GENERATION, 11), a=11, b=11) is Outcome.OK
    assert await begun.standing("a", "b") == [12, None]
    assert (await begun.mark()).seen == 12
    assert await begun.put(Put(GENERATION, 12), b=0) is Outcome.OK
    assert await begun.standing("b") == [0]


@pytest.mark.clause("ICache", 6)
@pytest.mark.parametrize("mark", Mark)
async def test_mark_is_moved_only_from_what_the_cache_has(mark: Mark, begun: Backend) -> None:
    verdict = await begun.cache.put_newer(begun.marker, Put(GENERATION, 12, advance=Advance(mark, 11)), {})
    assert (verdict.outcome, verdict.mark) == (Outcome.BEHIND, 10)
    assert await begun.put(Put(GENERATION, 12, advance=Advance(mark, 10)), a=12) is Outcome.OK
    assert await begun.put(Put(GENERATION, 11, advance=Advance(mark, 9)), a=11) is Outcome.OK

    assert await begun.standing("a") == [12]
    expected = Marker(GENERATION, 12, 10, 10)
    assert await begun.mark() == replace(expected, **{mark.value: 12})


@pytest.mark.clause("ICache", 6)
async def test_chain_belongs_to_who_began_it_last_and_misses_nothing(begun: Backend) -> None:
    def link(token: bytes, count: int, snapshot: int = 12) -> Put:
        advance = Advance(Mark.LOADED, 10) if count in (0, 3) else None
        return Put(GENERATION, snapshot, Chain(token, count), advance)

    assert await begun.put(link(TOKEN, 1), a=12) is Outcome.FENCED
    assert await begun.put(link(TOKEN, 0)) is Outcome.OK
    assert await begun.put(link(TOKEN, 2), a=12) is Outcome.FENCED
    assert await begun.put(link(TOKEN, 1), a=12) is Outcome.OK
    assert await begun.put(link(TOKEN, 1, 13), a=13) is Outcome.OK  # Said again, it has no effect.
    assert await begun.standing("a") == [12]
    assert await begun.put(link(TOKEN, 2), b=12) is Outcome.OK
    assert await begun.mark() == Marker(GENERATION, 12, 10, 10)
    assert await begun.put(link(TOKEN, 3)) is Outcome.OK
    assert await begun.mark() == Marker(GENERATION, 12, 10, 12)

    other = b"u" * 16
    assert await begun.put(link(other, 0, 14)) is Outcome.OK
    assert await begun.put(link(TOKEN, 4), c=12) is Outcome.FENCED
    assert await begun.put(replace(link(other, 0), advance=Advance(Mark.LOADED, 13))) is Outcome.BEHIND


@pytest.mark.clause("ICache", 6)
async def test_more_rows_than_one_step_may_take_are_refused(begun: Backend) -> None:
    rows = {begun.key(str(number)): value(12) for number in range(MOST_ROWS + 1)}
    with pytest.raises(ValueError, match="200 rows"):
        await begun.cache.put_newer(begun.marker, Put(GENERATION, 12), rows)
    rows.popitem()
    assert (await begun.cache.put_newer(begun.marker, Put(GENERATION, 12), rows)).outcome is Outcome.OK
    assert (await begun.cache.read(begun.marker, list(rows)))[1] == [value(12)] * MOST_ROWS


@pytest.mark.clause("ICache", 7)
async def test_marker_is_installed_only_where_the_remembered_one_stands(backend: Backend) -> None:
    first, second = Marker(GENERATION, 1, 1, 1), Marker(OTHER, 2, 2, 2)

    assert not await backend.cache.install(backend.marker, second, first)
    assert await backend.cache.install(backend.marker, None, first)
    assert not await backend.cache.install(backend.marker, None, second)
    assert await backend.mark() == first
    assert await backend.cache.install(backend.marker, first, second)
    assert await backend.mark() == second


@pytest.mark.clause("ICache", 8)
async def test_many_readers_of_one_moment_get_what_each_asked_for(begun: Backend) -> None:
    keys = [begun.key(str(number)) for number in range(2500)]
    for start in range(0, len(keys), MOST_ROWS):
        rows = {key: value(start) for key in keys[start : start + MOST_ROWS]}
        await begun.cache.put_newer(begun.marker, Put(GENERATION, 12), rows)
    random.Random(1).shuffle(keys)
    questions = [keys[:1], [], keys, keys[5:700], keys[700:1500], [begun.key("no")]]

    found = await asyncio.gather(
        *(begun.cache.read(begun.marker, keys) for keys in questions), begun.cache.read(begun.key("none"), keys[:2])
    )

    for (marker, values), asked in zip(found, questions, strict=False):
        assert marker == Marker(GENERATION, 12, 10, 10)
        assert values == await begun.cache.get_many(asked)
    assert found[-1][0] is None


async def test_readings_of_several_markers_are_the_oldest_or_none() -> None:
    from infrastructure.caches.redis import _oldest

    old, new = Marker(GENERATION, 5, 3, 4), Marker(GENERATION, 6, 6, 2)
    assert _oldest([old, new, new]) == Marker(GENERATION, 5, 3, 2)
    assert _oldest([old, None]) is None
    assert _oldest([None, old]) is None
    assert _oldest([old, Marker(OTHER, 5, 3, 4)]) is None


async def test_server_that_is_away_is_asked_now_and_then_and_nobody_waits_for_it() -> None:
    server = RedisServer()
    server.start()
    cache = RedisCache(RedisAddress("127.0.0.1", server.port), read_seconds=0.5, write_seconds=0.5)
    await cache.open()
    try:
        assert await cache.read("m", ["a"]) == (None, [None])
        server.signal(signal.SIGSTOP)
        for act in (lambda: cache.read("m", ["a"]), lambda: cache.set("a", b"1"), lambda: cache.get("a")):
            with pytest.raises(UnavailableError) as caught:
                await act()
            assert caught.value.code == "cache.unavailable"
        for _ in range(200):  # Which would be 100 s.
            with pytest.raises(UnavailableError):
                await cache.read("m", ["a"])
        assert await cache.health_check() == "The cache cannot be reached."
        server.signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await cache.read("m", ["a"]) in ((None, [None]), (None, [b"1"]))
                    break
                except UnavailableError:
                    await asyncio.sleep(0.05)
    finally:
        await cache.close()
        server.stop()


async def test_both_caches_do_the_same_whatever_is_put(redis_address: tuple[str, int]) -> None:
    """Random writes with numbers of few sizes, so that they meet: verdicts, markers and values are equal."""
    chance, prefix = random.Random(7), uuid.uuid4().hex
    caches: list[ICache] = [InMemoryCache(FakeClock()), RedisCache(RedisAddress(*redis_address), **PATIENT)]
    for cache in caches:
        await cache.open()
    names = [f"{prefix}:{name}" for name in "abc"]
    seen = set()
    remembered: Marker | None = None
    for _ in range(1500):
        if chance.random() < 0.06:
            new = Marker(chance.choice((GENERATION, OTHER)), *(chance.randint(1, 6) for _ in range(3)))
            assert len({await cache.install(f"{prefix}:m", remembered, new) for cache in caches}) == 1
        chain = Chain(chance.choice((TOKEN, OTHER)), chance.randint(0, 3)) if chance.random() < 0.6 else None
        advance = Advance(chance.choice(list(Mark)), chance.randint(1, 7)) if chance.random() < 0.5 else None
        put = Put(chance.choice((GENERATION, GENERATION, OTHER)), chance.randint(1, 9), chain, advance)
        rows = {name: value(chance.randint(0, 9)) for name in chance.sample(names, chance.randint(0, 3))}
        if chance.random() < 0.1:
            for cache in caches:
                await cache.delete_many(names[:2])
        verdicts = [await cache.put_newer(f"{prefix}:m", put, rows) for cache in caches]
        readings = [await cache.read(f"{prefix}:m", names) for cache in caches]
        assert verdicts[0] == verdicts[1], put
        assert readings[0] == readings[1], put
        remembered = readings[0][0]
        seen.add((verdicts[0].outcome, verdicts[0].takes_rows))
    for cache in caches:
        await cache.close()

    assert seen == {*((outcome, False) for outcome in Outcome), (Outcome.OK, True)}
