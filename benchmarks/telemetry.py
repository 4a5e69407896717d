"""What telemetry costs: the same work with it on, one trace of ten kept, beside off, in turns and in one run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import urllib3

from benchmarks.collector import sinking
from benchmarks.copying import copied, empty, make_project, make_tables
from benchmarks.measuring import ROUNDS, Line, median, timed
from benchmarks.running import AT_A_TIME, RUNS, own_database
from tests.e2e.api import Server, serving
from tests.servers import PostgresServer

_COPIES = ("passed", "five_rules")
_TROUBLES = ("well", "gone", "frozen", "500")
_REQUESTS = 1000
_REQUEST_ROUNDS = 7
_RUNS_ROUNDS = 5


def observing(database: PostgresServer, folder: Path, rows: int) -> Iterator[Line]:
    """Copies and runs per second; the first round is thrown away."""
    with sinking() as collector:
        on = collector.environment(rate=0.1)
        found = _copies(database, folder, rows, on)
        for name in _COPIES:
            measure = f"copying {rows:,} rows, {name}, seconds with telemetry beside without"
            yield measure, median(found[name, True]), median(found[name, False]), "≤ 1.03"
        rates: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(_RUNS_ROUNDS):
            for is_on in _in_turns(turn):
                rates[is_on].append(_runs(database, on if is_on else {}))
        yield "runs a second with telemetry beside without", median(rates[True]), median(rates[False]), "≥ 0.90"
        assert collector.received(), "nothing was sent"
    yield from _in_trouble(folder)


def _in_trouble(folder: Path) -> Iterator[Line]:
    """Requests, each a trace that is kept, and the time to an exit, while nobody takes the spans."""
    with ExitStack() as stack:
        sinks = {how: stack.enter_context(sinking(500 if how == "500" else 200)) for how in _TROUBLES}
        servers = {}
        for how, sink in sinks.items():
            (folder / how).mkdir(parents=True)
            servers[how] = stack.enter_context(serving(folder / how, **sink.environment(rate=1.0)))
            _answered(servers[how], 200)
        sinks["gone"].kill()
        sinks["frozen"].freeze()
        p99: dict[str, list[float]] = {how: [] for how in servers}
        for _ in range(_REQUEST_ROUNDS):
            for how, server in servers.items():
                p99[how].append(_answered(server, _REQUESTS))
        assert sinks["well"].received(), "nothing was sent"
        for how in _TROUBLES[1:]:
            measure = f"GET, p99 ms, collector {how}, beside one that is well"
            yield measure, median(p99[how]), median(p99["well"]), "≤ 1.10"
        seconds = {how: timed(server.stop) for how, server in servers.items()}
        for how in _TROUBLES[1:]:
            yield (
                f"SIGTERM → exit, seconds, collector {how}, beside one that is well",
                seconds[how],
                seconds["well"],
                "told",
            )


def _answered(server: Server, requests: int) -> float:
    """The 99th percentile of the times of requests that follow each other on one connection, ms."""
    pool, seconds = urllib3.PoolManager(), []
    for _ in range(requests):
        begun = time.perf_counter()
        found = pool.request("GET", f"{server.url}/v1/pipelines", headers={"Authorization": f"Bearer {server.key}"})
        seconds.append(time.perf_counter() - begun)
        assert found.status == 200, found.data
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


def _copies(
    database: PostgresServer, folder: Path, rows: int, on: dict[str, str]
) -> dict[tuple[str, bool], list[float]]:
    database.psql("alter system set autovacuum = off")
    database.psql("select pg_reload_conf()")
    make_tables(database, rows)
    found: dict[tuple[str, bool], list[float]] = {}
    with ExitStack() as stack:
        servers = {}
        for is_on in (True, False):
            make_project(database, folder / str(is_on))
            servers[is_on] = stack.enter_context(serving(folder / str(is_on), **(on if is_on else {})))
        for turn in range(ROUNDS + 1):
            for name in _COPIES:
                for is_on in _in_turns(turn):
                    empty(database, name)
                    found.setdefault((name, is_on), []).append(copied(servers[is_on], name, rows))
    return found


def _in_turns(turn: int) -> tuple[bool, bool]:
    """Telemetry on and off, each as often first as the other: what comes second finds a warmer machine."""
    return (True, False) if turn % 2 else (False, True)


def _runs(database: PostgresServer, telemetry: dict[str, str]) -> float:
    with own_database(database, "observed") as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.noop_runs", url, str(RUNS), "100", str(AT_A_TIME)],
            capture_output=True, text=True, check=True, env={**os.environ, **telemetry},
        )  # fmt: skip
    per_second: float = json.loads(done.stdout)["per_second"]
    return per_second
