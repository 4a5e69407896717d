"""What is made ahead while somebody is busy: the next items, but none behind a large one."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import pytest

from application.loads.overlap import ahead
from application.loads.stream import _with_last
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


async def test_of_an_item_that_is_alone_nobody_knows_whether_it_is_the_last() -> None:
    made: list[int] = []

    async def items() -> AsyncGenerator[int, None]:
        for number in _numbers(made):
            yield number

    found = []
    async for item, is_last in _with_last(items(), lambda number: number in (1, 4)):
        found.append((item, is_last, len(made)))
    assert found == [(0, False, 2), (1, False, 2), (2, False, 4), (3, False, 5), (4, False, 5)]
    made.clear()
    assert [(item, is_last) async for item, is_last in _with_last(items())][-2:] == [(3, False), (4, True)]


@pytest.mark.parametrize("way", ["thread", "task"])
async def test_a_consumer_that_is_cancelled_leaves_no_task_behind(way: str) -> None:
    may_end = threading.Event()

    def silent() -> Generator[int]:
        may_end.wait(20)
        yield 1

    async def given() -> AsyncGenerator[int, None]:
        await asyncio.sleep(20)
        yield 1

    async def read() -> None:
        thread = OneThread("silent")
        thread.interrupt = may_end.set
        async with aclosing(thread.iterate(silent()) if way == "thread" else ahead(given())) as items:
            async for _ in items:
                pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading})

    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
