"""IEngine in this process: streams as tasks of the event loop, each with its own threads."""

import asyncio
from collections.abc import Sequence

from domain.letting_go import let_go
from domain.loads.report import StreamReport
from domain.ports.engine import IEngine, OnNews, RunStream, Stop, StreamTask


class LocalEngine(IEngine):
    """Runs streams in this process."""

    def __init__(self, run_stream: RunStream) -> None:
        self._run_stream = run_stream

    async def run(
        self, tasks: Sequence[StreamTask], *, parallelism: int, stop: Stop, on_news: OnNews
    ) -> list[StreamReport]:
        gate = asyncio.Semaphore(parallelism)
        failures: list[BaseException] = []

        def stop_when_failed() -> str | None:
            return "sibling_failed" if failures else stop()

        async def run_one(task: StreamTask) -> StreamReport | None:
            async with gate:
                if failures:
                    return None
                try:
                    return await self._run_stream(task, stop_when_failed, on_news)
                except BaseException as error:  # noqa: BLE001 - raised again below, once the siblings have stopped
                    let_go(error)
                    failures.append(error)
                    return None

        running = [asyncio.create_task(run_one(task)) for task in tasks]
        try:
            reports = await asyncio.gather(*running)
        except asyncio.CancelledError:
            await asyncio.gather(*running, return_exceptions=True)
            raise
        if failures:
            raise failures[0]
        return [report for report in reports if report is not None]
