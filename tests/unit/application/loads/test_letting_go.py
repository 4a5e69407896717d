"""Of a run that failed or was stopped no batch stays in memory until the garbage collector comes, which may
be never.
"""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from application.loads.overlap import ahead
from domain.errors import WorkFailedError
from domain.ports.engine import StreamTask
from infrastructure.engines.local import LocalEngine
from infrastructure.threads import OneThread


class Batch:
    """Something large."""


@pytest.fixture
def batches() -> Iterator[Callable[[], Batch]]:
    """Makes batches while nobody collects garbage, and looks for those that are left."""
    made: list[weakref.ref[Batch]] = []

    def make() -> Batch:
        batch = Batch()
        made.append(weakref.ref(batch))
        return batch

    gc.disable()
    try:
        yield make
        assert made
        assert [ref for ref in made if ref() is not None] == []
    finally:
        gc.enable()


async def _given(make: Callable[[], Batch], count: int) -> AsyncGenerator[Batch]:
    for _ in range(count):
        yield make()
    raise WorkFailedError("the source broke")


async def _streamed(make: Callable[[], Batch], *, wanted: int, count: int) -> None:
    """Read on, two stages before the last, until enough is there or the source breaks."""
    seen = 0
    async with aclosing(ahead(ahead(_given(make, count)), size=2)) as items:
        async for _ in items:
            await asyncio.sleep(0)
            seen += 1
            if seen == wanted:
                return


async def _failed(work: Awaitable[Any]) -> str:
    try:
        await work
    except (WorkFailedError, asyncio.CancelledError) as error:
        return type(error).__name__
    return ""


async def test_stages_that_are_left_keep_nothing(batches: Callable[[], Batch]) -> None:
    await _streamed(batches, wanted=3, count=100)


@pytest.mark.line("29")
async def test_streams_that_fail_keep_nothing(batches: Callable[[], Batch]) -> None:
    async def run(*_: object) -> Any:
        await _streamed(batches, wanted=100, count=5)

    tasks = [cast(StreamTask, None)] * 3
    running = LocalEngine(run).run(tasks, parallelism=3, stop=lambda: None, on_news=lambda _: None)
    assert await _failed(running) == "WorkFailedError"


async def test_streams_that_are_cancelled_keep_nothing(batches: Callable[[], Batch]) -> None:
    started = asyncio.Event()

    async def run(*_: object) -> Any:
        async with aclosing(ahead(ahead(_given(batches, 100)), size=2)) as items:
            async for _ in items:
                started.set()
                await asyncio.sleep(30)

    work = LocalEngine(run).run([cast(StreamTask, None)], parallelism=3, stop=lambda: None, on_news=lambda _: None)
    task = asyncio.ensure_future(work)
    await started.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    assert await _failed(task) == "CancelledError"


@pytest.mark.parametrize("wanted", [2, 100])
async def test_threads_keep_nothing(batches: Callable[[], Batch], wanted: int) -> None:
    def items() -> Generator[Batch]:
        for _ in range(5):
            yield batches()
        raise WorkFailedError("the driver broke")

    async def read(*_: object) -> Any:
        seen = 0
        async with aclosing(thread.iterate(items())) as found:
            async for _ in found:
                seen += 1
                if seen == wanted:
                    return

    thread = OneThread("reading")
    engine = LocalEngine(read)
    running = engine.run([cast(StreamTask, None)], parallelism=1, stop=lambda: None, on_news=lambda _: None)
    assert await _failed(running) == ("WorkFailedError" if wanted == 100 else "")
    thread.close()
