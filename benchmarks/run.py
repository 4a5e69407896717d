"""`make bench`: ours beside a peer or limit in one run; a missing peer or ratio is an error.

make bench                      5,000,000 rows
make bench ARGS="--rows 100000" quicker
make bench ARGS="--only running" the part of benchmarks/running.py alone

Keeps the figures in benchmarks/results and writes docs/benchmarks.md from them.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from benchmarks.copying import copying, remembering
from benchmarks.files import loading
from benchmarks.measuring import ROUNDS, Line, median, timed
from benchmarks.running import running
from benchmarks.telemetry import observing
from benchmarks.telling import PAGE, page
from benchmarks.walk import walking
from tests.e2e.api import headrace, serving
from tests.servers import PostgresServer

AS_USERS_HAVE_IT = {"HEADRACE_TEST_EXECUTE": "1", "HEADRACE_TEST_DISK": "1"}
"""Measured is the program that an interpreter starts, and a database on a disk: tests fork the one and keep the other
in memory.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--without-peers", action="store_true", help="Leave out sling and dlt, which take minutes.")
    parser.add_argument("--only", choices=("copying", "memory", "running", "starting", "telemetry", "walk"))
    arguments = parser.parse_args()
    os.environ |= AS_USERS_HAVE_IT
    rows, only = arguments.rows, arguments.only
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    database = PostgresServer()
    database.start()
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
            sizes = (1_000_000, 20_000_000) if rows >= 10**6 else (rows, rows * 4)
            parts: dict[str, Callable[[], Iterable[Line]]] = {
                "copying": lambda: chain(
                    copying(database, Path(folder) / "copying", rows, peers=not arguments.without_peers),
                    loading(Path(folder) / "loading", rows),
                ),
                "memory": lambda: remembering(database, Path(folder) / "memory", sizes),
                "starting": lambda: starting(Path(folder) / "starting"),
                "running": lambda: running(database, Path(folder) / "running"),
                "telemetry": lambda: observing(database, Path(folder) / "telemetry", rows),
                "walk": walking,
            }
            print(f"{'measure':<62}{'ours':>12}{'beside':>12}{'ratio':>8}   goal")
            for name, part in parts.items():
                if only in (None, name):
                    keep(name, rows, machine, [_told(line) for line in part()])
            print(machine)
            PAGE.write_text(page())
    finally:
        database.stop()


def _told(line: Line) -> Line:
    """Print a line as soon as it is measured."""
    name, ours, theirs, goal = line
    print(f"{name:<62}{ours:>12.3f}{theirs:>12.3f}{ours / theirs:>8.2f}   {goal}", flush=True)
    return line


def keep(part: str, rows: int, machine: str, results: list[Line]) -> None:
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


def starting(folder: Path) -> list[Line]:
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


if __name__ == "__main__":
    sys.exit(main())
