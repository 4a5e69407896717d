"""A child that had too little of the machine says nothing of what it looked at: who asked tries again."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInputError, PlatformError, StoreRefusedError, UnavailableError
from domain.ports.security import Cost
from infrastructure.bench.bench import Bench
from infrastructure.bench.deadline import Deadline, StarvedError
from infrastructure.bench.in_process import InProcessBench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.confinement import Confinement
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from tests.security import bench_work

_SPIN = "while True: pass"
_SPIN_IDLE = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); print(flush=True)\n" + _SPIN


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(ChildLimits(400, 0.2), query_too_large, children=1, modules=("tests.security.bench_work",))
    bench.warm()
    bench.call(bench_work.pid)
    yield bench
    asyncio.run(bench.close())


@contextmanager
def _outrun() -> Iterator[int]:
    """A process that wants a processor, and hardly has it, as another one takes that."""
    with subprocess.Popen([sys.executable, "-c", _SPIN_IDLE], stdout=subprocess.PIPE) as waits:
        assert waits.stdout is not None
        waits.stdout.readline()
        with subprocess.Popen([sys.executable, "-c", _SPIN]) as takes:
            processor = {min(os.sched_getaffinity(0))}
            for process in (waits, takes):
                os.sched_setaffinity(process.pid, processor)
            try:
                yield waits.pid
            finally:
                waits.kill()
                takes.kill()


def _told(bench: Bench, cpu_seconds: float | None) -> PlatformError:
    where = bench if cpu_seconds is None else bench.within(cpu_seconds)
    with pytest.raises(PlatformError) as raised:
        where.call(bench_work.hold, 30)
    return raised.value


def test_what_did_not_work_for_its_time_is_tried_again_and_what_may_take_all_of_it_is_too_large(bench: Bench) -> None:
    starved, overdue = _told(bench, 0.1), _told(bench, None)

    assert isinstance(starved, UnavailableError)
    assert (starved.code, starved.retryable) == ("worker.busy", True)
    assert isinstance(overdue, InvalidInputError)
    assert (overdue.code, overdue.retryable) == ("query.too_large", False)
    assert bench.call(bench_work.pid)


@pytest.mark.parametrize("calls", [lambda bench: bench, lambda bench: bench.within(0.15), lambda _: InProcessBench()])
async def test_what_is_worked_is_counted_and_what_is_waited_for_is_not(
    bench: Bench, calls: Callable[[Any], Any]
) -> None:
    cost = Cost()
    where = calls(bench).counting(cost)

    await where.acall(bench_work.hold, 0.1)
    waited = cost.seconds
    await where.acall(bench_work.spin_for, 0.05)
    with pytest.raises(PlatformError, match="2 problems"):
        await where.acall(bench_work.spin_and_refuse, 0.05)

    assert waited < 0.05
    assert cost.seconds >= 0.1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="nothing tells who waits for a processor")
def test_a_process_that_waits_for_a_processor_gets_more_time_and_one_that_sleeps_does_not(bench: Bench) -> None:
    with _outrun() as waiting:
        begun = time.monotonic()
        waits, sleeps = Deadline(0.05, waiting), Deadline(0.05, bench.pids[0])
        time.sleep(0.06)

        assert waits.left() > 0
        with pytest.raises(TimeoutError):
            sleeps.left()

        with pytest.raises(StarvedError):
            while True:
                time.sleep(waits.left())
        assert time.monotonic() - begun > 0.05 * 6


@pytest.mark.parametrize("is_starved", [True, False])
def test_a_file_whose_views_nobody_had_the_time_to_plan_is_not_one_of_too_many(
    bench: Bench, tmp_path: Path, is_starved: bool
) -> None:
    path = tmp_path / "a.duckdb"
    DuckDBFile(DuckDBOptions(path))._connect().close()
    where = bench.within(0.1) if is_starved else bench
    options = DuckDBOptions(path, confinement=Confinement(tmp_path, (tmp_path,)))

    with pytest.raises(PlatformError) as raised:
        DuckDBFile(options, lambda _: where.call(bench_work.hold, 30) and None)._connect()

    assert isinstance(raised.value, UnavailableError)
    assert isinstance(raised.value, StoreRefusedError) is not is_starved
    assert raised.value.retryable is is_starved
    assert raised.value.code == ("worker.busy" if is_starved else "store.views_too_large")
