"""`make bench`: ours beside a peer or limit in one run; a missing peer or ratio is an error.

make bench                      5,000,000 rows
make bench ARGS="--rows 100000" quicker
make bench ARGS="--only running" the part of benchmarks/running.py alone
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.running import running
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import postgres_connection
from tests.servers import PostgresServer

ROUNDS = 3
ORDERS = """
create table orders as
select g::bigint as id,
       (random() * 1e6)::int as customer_id,
       (random() * 1000)::numeric(12, 2) as amount,
       (array['new', 'paid', 'shipped', 'returned'])[1 + (random() * 3)::int] as status,
       timestamptz '2025-01-01' + g * interval '1 second' as created_at,
       date '2025-01-01' + (g % 365)::int as ship_date,
       random() < 0.1 as is_gift,
       md5(g::text) as ref,
       random() as weight,
       case when random() < 0.2 then null else 'note ' || g end as note
from generate_series(1, {rows}) g
"""
COPY = """version: 1
pipeline: copy_orders
source: {connection: shop, table: orders}
destination: {connection: shop, table: orders_copied}
run: {batch_rows: 50000}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--only", choices=("copying", "running", "starting"))
    arguments = parser.parse_args()
    rows, only = arguments.rows, arguments.only
    database = PostgresServer()
    database.start()
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            parts = {
                "copying": lambda: copying(database, Path(folder) / "copying", rows),
                "starting": lambda: starting(Path(folder) / "copying"),
                "running": lambda: list(running(database, Path(folder) / "running")),
            }
            results = {name: part() for name, part in parts.items() if only in (None, name)}
    finally:
        database.stop()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"\n{'measure':<62}{'ours':>12}{'beside':>12}{'ratio':>8}   goal")
    for name, ours, theirs, goal in (line for lines in results.values() for line in lines):
        ratio = ours / theirs
        print(f"{name:<62}{ours:>12.3f}{theirs:>12.3f}{ratio:>8.2f}   {goal}")
    print(machine)
    for part, lines in results.items():
        keep(part, rows, machine, lines)


def keep(part: str, rows: int, machine: str, results: list[tuple[str, float, float, str]]) -> None:
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine,
        "rows": rows,
        "versions": {name: version(name) for name in ("headrace", "duckdb", "pyarrow", "adbc-driver-postgresql")},
        "results": [
            {
                "measure": name,
                "ours": round(ours, 3),
                "beside": round(theirs, 3),
                "ratio": round(ours / theirs, 3),
                "goal": goal,
            }
            for name, ours, theirs, goal in results
        ],
    }
    (folder / f"{part}.json").write_text(json.dumps(found, indent=2) + "\n")


def copying(database: PostgresServer, folder: Path, rows: int) -> list[tuple[str, float, float, str]]:
    """Postgres to Postgres, checkpoints on, beside a psql pipe; the first round is thrown away."""
    database.psql(ORDERS.format(rows=rows))
    database.psql("alter table orders add primary key (id)")
    database.psql("vacuum analyze orders")
    database.psql("create table orders_psql (like orders)")
    for name in ("connections", "pipelines"):
        (folder / name).mkdir(parents=True)
    (folder / "headrace.toml").write_text("[settings]\n")
    (folder / "connections/shop.yaml").write_text(postgres_connection(f"{database.url}/postgres", "shop"))
    (folder / "pipelines/copy_orders.yaml").write_text(COPY)
    assert headrace(folder, "apply").returncode == 0
    ours, theirs, above = [], [], 0.0
    with serving(folder) as server:
        idle = peak_mb(server.process.pid)
        for _ in range(ROUNDS + 1):
            theirs.append(timed(lambda: psql_pipe(database)))
            ours.append(timed(lambda: our_copy(database, server, rows)))
        above = peak_mb(server.process.pid) - idle
    return [
        (f"copy {rows:,} rows, seconds beside a psql pipe", median(ours), median(theirs), "of the data plane: ≤ 1.25"),
        ("the same, VmHWM above idle, MB beside the limit", above, 200.0, "≤ 1.00"),
    ]


def starting(folder: Path) -> list[tuple[str, float, float, str]]:
    """--help, and `up` until ready and followed at once by a successful trigger."""
    folder.mkdir(parents=True, exist_ok=True)
    helps = [timed(lambda: headrace(folder, "--help")) for _ in range(ROUNDS + 1)]

    def ready() -> None:
        with serving(folder):
            pass

    readies = [timed(ready) for _ in range(ROUNDS + 1)]
    return [
        ("headrace --help, seconds beside the limit", median(helps), 0.3, "≤ 1.00"),
        ("headrace up until ready, seconds beside the limit", median(readies), 2.5, "≤ 1.00"),
    ]


def psql_pipe(database: PostgresServer) -> None:
    command = [str(database.psql_path), "-h", "127.0.0.1", "-p", str(database.port), "-U", "postgres", "-qc"]
    database.psql("truncate orders_psql")
    with subprocess.Popen([*command, "copy orders to stdout (format binary)"], stdout=subprocess.PIPE) as reading:
        subprocess.run([*command, "copy orders_psql from stdin (format binary)"], stdin=reading.stdout, check=True)


def our_copy(database: PostgresServer, server: Server, rows: int) -> None:
    database.psql("drop table if exists orders_copied")
    run = server.call("POST", "/v1/pipelines/copy_orders/trigger").body
    done = server.wait_for(run["id"], seconds=600)
    if done["state"] != "succeeded" or done["report"]["counts"]["used"] != rows:
        raise SystemExit(f"the copy failed: {done['error']}")


def peak_mb(pid: int) -> float:
    """VmHWM of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median(values: list[float]) -> float:
    return statistics.median(values[1:])


if __name__ == "__main__":
    sys.exit(main())
