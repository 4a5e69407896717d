"""One suite for every ICache."""

from datetime import timedelta

import pytest

from infrastructure.caches.memory import InMemoryCache
from tests.fakes.clock import FakeClock

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory"])
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> InMemoryCache:
    return InMemoryCache(clock, max_entries=3)


@pytest.mark.clause("ICache", 1)
async def test_absent_deleted_and_expired_are_none(cache: InMemoryCache, clock: FakeClock) -> None:
    await cache.set_many({"a": b"1", "b": b"2"}, time_to_live=MINUTE)
    await cache.delete_many(["a", "never"])

    assert await cache.get("never") is None
    assert await cache.get("a") is None
    assert await cache.get("b") == b"2"


@pytest.mark.clause("ICache", 2)
async def test_many_values_come_in_the_order_of_the_keys(cache: InMemoryCache) -> None:
    await cache.set_many({"a": b"1", "b": b"\x00\xff"}, time_to_live=MINUTE)

    assert await cache.get_many(["b", "x", "a"]) == [b"\x00\xff", None, b"1"]


@pytest.mark.clause("ICache", 3)
async def test_value_expires_after_its_time(cache: InMemoryCache, clock: FakeClock) -> None:
    await cache.set_many({"a": b"1"}, time_to_live=MINUTE)
    clock.advance(59)
    assert await cache.get("a") == b"1"

    clock.advance(1)

    assert await cache.get("a") is None


@pytest.mark.clause("ICache", 4)
async def test_add_sets_only_what_is_absent(cache: InMemoryCache, clock: FakeClock) -> None:
    assert await cache.add("a", b"1", time_to_live=MINUTE)
    assert not await cache.add("a", b"2", time_to_live=MINUTE)
    assert await cache.get("a") == b"1"

    clock.advance(60)

    assert await cache.add("a", b"3", time_to_live=MINUTE)


@pytest.mark.clause("ICache", 5)
async def test_least_recently_used_goes_first(cache: InMemoryCache) -> None:
    await cache.set_many({"a": b"1", "b": b"2", "c": b"3"}, time_to_live=MINUTE)
    await cache.get("a")

    await cache.set_many({"d": b"4"}, time_to_live=MINUTE)

    assert await cache.get_many(["a", "b", "c", "d"]) == [b"1", None, b"3", b"4"]


@pytest.mark.clause("ICache", 6)
async def test_closed_cache_can_be_opened_again(cache: InMemoryCache) -> None:
    await cache.open()
    await cache.close()
    await cache.close()
    await cache.open()

    assert await cache.health_check() is None
    assert await cache.get("a") is None
