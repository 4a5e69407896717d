"""procrastinate on the same Postgres: jobs a second and the latency of a pick-up. Runs in an environment of its own.

Arguments: a connection string, how many jobs, how many at a time. Prints JSON.
"""

import asyncio
import json
import sys
import time

import procrastinate

URL, COUNT, CONCURRENCY = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, max_size=20))
started: dict[int, float] = {}


@app.task(queue="noop")
async def noop(number: int) -> None:
    started[number] = time.perf_counter()


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def defer(first: int) -> None:
            for number in range(first, COUNT, 20):
                await noop.defer_async(number=number)

        begun = time.perf_counter()
        await asyncio.gather(*(defer(first) for first in range(20)))
        deferred = time.perf_counter() - begun
        begun = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=CONCURRENCY, install_signal_handlers=False)
        drained = time.perf_counter() - begun
        assert len(started) == COUNT

        worker = asyncio.create_task(app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        await asyncio.sleep(1)
        latencies = []
        for number in range(COUNT, COUNT + 200):
            await noop.defer_async(number=number)
            asked = time.perf_counter()
            while number not in started:
                await asyncio.sleep(0.0002)
            latencies.append(started[number] - asked)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    latencies.sort()
    print(
        json.dumps(
            {
                "deferred_per_second": COUNT / deferred,
                "drained_per_second": COUNT / drained,
                "end_to_end_per_second": COUNT / (deferred + drained),
                "p50_ms": latencies[100] * 1000,
                "p99_ms": latencies[197] * 1000,
            }
        )
    )


asyncio.run(main())
