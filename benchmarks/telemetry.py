"""What telemetry costs: the same work with it on, one trace of ten kept, beside off, in turns and in one run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.copying import copied, empty, make_project, make_tables
from benchmarks.measuring import ROUNDS, Line, median
from benchmarks.running import AT_A_TIME, RUNS, own_database
from tests.collector import collecting
from tests.e2e.api import serving
from tests.servers import PostgresServer

_COPIES = ("passed", "five_rules")


def observing(database: PostgresServer, folder: Path, rows: int) -> Iterator[Line]:
    """Copies and runs per second; the first round is thrown away."""
    with collecting() as collector:
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_SAMPLING_RATE": "0.1"}
        found = _copies(database, folder, rows, on)
        for name in _COPIES:
            measure = f"copying {rows:,} rows, {name}, seconds with telemetry beside without"
            yield measure, median(found[name, True]), median(found[name, False]), "≤ 1.03"
        rates = {is_on: [_runs(database, on if is_on else {}) for _ in range(1)] for is_on in (True, False)}
        for _ in range(ROUNDS):
            for is_on, rate in rates.items():
                rate.append(_runs(database, on if is_on else {}))
        yield "runs a second with telemetry beside without", median(rates[True]), median(rates[False]), "≥ 0.90"
        assert collector.spans, "nothing was sent"


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
        for _ in range(ROUNDS + 1):
            for name in _COPIES:
                for is_on, server in servers.items():
                    empty(database, name)
                    found.setdefault((name, is_on), []).append(copied(server, name, rows))
    return found


def _runs(database: PostgresServer, telemetry: dict[str, str]) -> float:
    with own_database(database, "observed") as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.noop_runs", url, str(RUNS), "100", str(AT_A_TIME)],
            capture_output=True, text=True, check=True, env={**os.environ, **telemetry},
        )  # fmt: skip
    per_second: float = json.loads(done.stdout)["per_second"]
    return per_second
