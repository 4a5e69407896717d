"""What is made ahead while somebody is busy: the next items, but none behind a large one."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import pytest

from application.loads.overlap import ahead
from infrastructure.threads import OneThread

pytestmark = pytest.mark.line("29")
_COUNT = 5


def _numbers(made: list[int]) -> Generator[int]:
    for number in range(_COUNT):
        made.append(number)
        yield number


def _items(way: str, made: list[int], *, are_large: bool) -> AsyncGenerator[int, None]:
    if way == "thread":
        return OneThread("numbers").iterate(_numbers(made), is_large=lambda _: are_large)

    async def given() -> AsyncGenerator[int, None]:
        for number in _numbers(made):
            yield number

    return ahead(given(), is_large=lambda _: are_large)


@pytest.mark.parametrize("way", ["thread", "task"])
async def test_nothing_is_made_behind_a_large_item_until_it_is_done_with(way: str) -> None:
    made: list[int] = []
    async with aclosing(_items(way, made, are_large=True)) as items:
        found = []
        async for item in items:
            for _ in range(20):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002)
            assert made == list(range(item + 1))
            found.append(item)
    assert found == list(range(_COUNT))


@pytest.mark.parametrize("way", ["thread", "task"])
async def test_others_are_made_ahead(way: str) -> None:
    made: list[int] = []
    async with aclosing(_items(way, made, are_large=False)) as items:
        assert await anext(items) == 0
        async with asyncio.timeout(5):
            while len(made) < 2:
                await asyncio.sleep(0.001)
        assert [item async for item in items] == list(range(1, _COUNT))


@pytest.mark.parametrize("way", ["thread", "task"])
async def test_who_leaves_at_a_large_item_waits_for_nothing(way: str) -> None:
    async with asyncio.timeout(5), aclosing(_items(way, [], are_large=True)) as items:
        assert await anext(items) == 0
