"""How fast runs start, follow each other and recover: beside procrastinate, and beside limits."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.e2e.api import Server, headrace, serving, start
from tests.e2e.projects import postgres_environment, write
from tests.faults.installation import installed, trigger, with_copies
from tests.servers import PostgresServer, RedisServer

RUNS = 3000
AT_A_TIME = 32
Result = tuple[str, float, float, str]


def running(database: PostgresServer, folder: Path) -> Iterator[Result]:
    """All measures of this module; higher is better where the goal says ≥."""
    peer = procrastinate(database, folder)
    with own_database(database, "noop") as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.noop_runs", url, str(RUNS), "100", str(AT_A_TIME)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    ours = json.loads(done.stdout)
    yield "runs a second, end to end, beside the limit", ours["per_second"], 200.0, "≥ 1.00"
    yield (
        "runs a second, end to end, beside procrastinate's bare jobs",
        ours["per_second"],
        peer["end_to_end_per_second"],
        "told",
    )
    yield (
        "the same, beside procrastinate's draining alone",
        ours["per_second"],
        peer["drained_per_second"],
        "stretch: ≥ 1",
    )
    yield (
        "runs launched a second, beside jobs deferred",
        ours["launched_per_second"],
        peer["deferred_per_second"],
        "told",
    )
    with own_database(database, "latency") as url:
        latencies = sorted(trigger_latencies(folder / "latency", url))
    p50, p99 = latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]
    yield "trigger answered → running, p50 ms beside the limit", p50, 10.0, "≤ 1.00"
    yield "the same, beside procrastinate's pick-up", p50, peer["p50_ms"], "told"
    yield "trigger answered → running, p99 ms beside the limit", p99, 50.0, "≤ 1.00"
    yield "the same, beside procrastinate's pick-up", p99, peer["p99_ms"], "told"
    few, many, memory = queued_claims(database)
    yield "claim and end with 100,000 queued, ms beside with 100", many, few, "≤ 1.20"
    yield "the same, VmHWM above with 100, MB beside the limit", memory, 50.0, "≤ 1.00"
    with own_database(database, "recovery") as url:
        yield (
            "recovery after kill -9, default lease, s beside the limit",
            recovery(folder / "r30", url, {}),
            45.0,
            "≤ 1.00",
        )
    with own_database(database, "quick") as url:
        quick = {"HEADRACE_RUN__LEASE_SECONDS": "3", "HEADRACE_RUN__TICK_SECONDS": "0.5"}
        yield "recovery, lease of 3 s, s beside the limit", recovery(folder / "r3", url, quick), 5.0, "≤ 1.00"
    yield "recovery on one host with SQLite, s from ready", recovery_on_one_host(folder / "sqlite"), 1.0, "≤ 1.00"


@contextmanager
def own_database(database: PostgresServer, name: str) -> Iterator[str]:
    """A database of its own, so that no measure meets the rows of another."""
    database.psql(f"create database {name}")
    yield f"{database.url}/{name}"
    database.psql(f"drop database {name} with (force)")


def procrastinate(database: PostgresServer, folder: Path) -> dict[str, float]:
    """Install and run the peer in an environment of its own."""
    environment = folder / "procrastinate"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", environment], check=True)
    subprocess.run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            environment / "bin/python",
            "procrastinate==3.10.*",
            "psycopg[binary]",
        ],
        check=True,
    )
    with own_database(database, "procrastinate") as url:
        script = Path(__file__).parent / "peers/procrastinate_jobs.py"
        done = subprocess.run(
            [environment / "bin/python", script, url, str(RUNS), str(AT_A_TIME)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def one_row(folder: Path, url: str) -> dict[str, str]:
    """A project that moves one row, with its records on Postgres."""
    write(folder, "headrace.toml", "[settings]\n")
    write(folder, "data/one.csv", "id\n1\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        folder,
        "pipelines/one.yaml",
        "version: 1\npipeline: one\nsource: {connection: landing, path: one.csv, key: [id]}\n"
        "destination: {table: one}\n",
    )
    settings = {**postgres_environment(url), "HEADRACE_STORE__KIND": "duckdb", "HEADRACE_METADATA__KIND": "postgres"}
    done = headrace(folder, "apply", "--yes", **settings)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return settings


def trigger_latencies(folder: Path, url: str) -> Iterator[float]:
    """Milliseconds from the answer to a trigger until the run was claimed, one at a time."""
    with serving(folder, **one_row(folder, url)) as server:
        for number in range(120):
            run_id = trigger(server, "one")
            answered = time.time()
            assert run_id
            server.wait_for(run_id)
            lines = server.call("GET", f"/v1/runs/{run_id}/transitions").body["items"]
            claimed = next(datetime.fromisoformat(line["at"]) for line in lines if line["reason"] == "claimed")
            if number >= 20:
                yield max(0.0, (claimed.timestamp() - answered) * 1000)


def queued_claims(database: PostgresServer) -> tuple[float, float, float]:
    """Milliseconds a run from ring to end with few and with many queued, and the memory that the many cost."""
    found = []
    for name, queued in (("few", 100), ("many", 100_000)):
        with own_database(database, name) as url:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.queued_runs", url, str(queued)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            found.append(json.loads(done.stdout))
    few, many = found
    return few["milliseconds"], many["milliseconds"], many["peak_mb"] - few["peak_mb"]


def recovery(folder: Path, url: str, lease: dict[str, str]) -> float:
    """Seconds from the death of a worker until another has its run."""
    broker = RedisServer()
    broker.start()
    queue = {"HEADRACE_QUEUE__KIND": "redis", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(broker.port)}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, "headrace.toml", "[settings]\n")
    try:
        with installed(folder, url, queue) as made:
            for name in ("HEADRACE_RUN__LEASE_SECONDS", "HEADRACE_RUN__TICK_SECONDS"):
                del made.settings[name]
            made.settings.update(lease)
            with_copies(made, 1, rows=60_000, batch_rows=50)
            server, first = made.api(), made.worker()
            trigger(server, "copy0")
            while not made.records("SELECT 1 FROM runs WHERE state = 'running' AND read_set IS NOT NULL"):
                time.sleep(0.01)
            time.sleep(0.5)
            made.worker()
            first.kill()
            died = time.time()
            while not made.records("SELECT 1 FROM runs WHERE attempt = 2"):
                time.sleep(0.02)
            return time.time() - died
    finally:
        broker.stop()


def recovery_on_one_host(folder: Path) -> float:
    """Seconds from a new `up` being ready until it has the run of the one that was killed."""
    write(folder, "headrace.toml", "[settings]\n")
    write(folder, "data/big.csv", "id\n" + "\n".join(str(number) for number in range(200_000)) + "\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        folder,
        "pipelines/big.yaml",
        "version: 1\npipeline: big\nsource: {connection: landing, path: big.csv, key: [id]}\n"
        "destination: {table: big}\nrun: {batch_rows: 500}\n",
    )
    if headrace(folder, "apply", "--yes").returncode != 0:
        raise SystemExit("the project cannot be applied")
    server: Server = start(folder)
    run_id = trigger(server, "big")
    assert run_id
    while server.call("GET", f"/v1/runs/{run_id}").body["state"] != "running":
        time.sleep(0.01)
    server.kill()
    with serving(folder) as again:
        ready = time.time()
        while again.call("GET", f"/v1/runs/{run_id}").body["attempt"] < 2:
            time.sleep(0.01)
        return time.time() - ready
