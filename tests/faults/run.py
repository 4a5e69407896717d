"""`make faults COUNT=1000`: so many random kills on each store at the same time, then fifty SIGTERMs; zeros or exit 1.

Prints a line per kill point and keeps seed, commit and figures in docs/evidence/faults.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.api import serving
from tests.e2e.projects import write
from tests.e2e.tables import duckdb_rows
from tests.faults.installation import trigger
from tests.faults.killing import AT_A_CALL, AT_A_TIME, POINTS
from tests.servers import PostgresServer

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--sigterms", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-faults-") as name:
        kills = killed(Path(name), arguments.count, arguments.seed)
        stops = stopped(Path(name) / "sigterm", arguments.sigterms)
    print(f"SIGTERM while busy: {stops['exit_0']} of {stops['times']} exit 0, longest {stops['longest_seconds']} s")
    keep({"seed": arguments.seed, "kills": kills, "sigterm": stops})
    return 1 if any(problems(found) for found in kills) or not stops["is_exact"] else 0


def killed(folder: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Kill runs on DuckDB and on Postgres, one process each, and print both tables."""
    database = PostgresServer()
    database.start()
    try:
        loops = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.killing", store, f"{database.url}/postgres", str(count), str(seed),
                 str(folder / store)],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )
            for store in ("duckdb", "postgres")
        ]  # fmt: skip
        answers = [loop.communicate()[0] for loop in loops]
    finally:
        database.stop()
    found = []
    for loop, answer in zip(loops, answers, strict=True):
        if loop.returncode != 0:
            raise SystemExit(f"a loop failed with exit {loop.returncode}")
        told = json.loads(answer)
        print("\n".join(told["table"]), end="\n\n", flush=True)
        found.append(told["evidence"])
    return found


def problems(found: dict[str, Any]) -> list[str]:
    """What forbids calling a loop good: rows, sentences, and points that never killed."""
    wanted = [*POINTS, AT_A_TIME, *([AT_A_CALL] if shutil.which("strace") else [])]
    idle = [kind for kind in wanted if not found["points"].get(kind, {}).get("killed")]
    rows = found["missing"] + found["doubled"]
    said = [*found["problems"], *(f"{kind} killed nothing" for kind in idle)]
    for line in said:
        print(f"{found['store']}: {line}")
    return said + ([f"{rows} rows"] if rows else [])


def stopped(folder: Path, times: int) -> dict[str, Any]:
    """SIGTERM a busy `up` so many times; every exit is 0 within the grace, and the copy is exact in the end."""
    write(folder, "headrace.toml", "[settings]\n")
    rows = 2_000 * times
    write(folder, "data/big.csv", "id\n" + "\n".join(str(number) for number in range(rows)) + "\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        folder,
        "pipelines/big.yaml",
        "version: 1\npipeline: big\nsource: {connection: landing, path: big.csv, key: [id]}\n"
        "destination: {table: big}\nrun: {batch_rows: 20}\n",
    )
    codes, longest, run_id = [], 0.0, None
    for number in range(times):
        with serving(folder, HEADRACE_HTTP__GRACE_SECONDS=str(int(GRACE_SECONDS))) as server:
            if number == 0:
                for name in ("connections/landing", "pipelines/big"):
                    server.call("PUT", f"/v1/{name}", (folder / f"{name}.yaml").read_text(), kind="application/yaml")
                run_id = trigger(server, "big")
            while server.call("GET", f"/v1/runs/{run_id}").body["state"] == "queued":
                time.sleep(0.01)
            begun = time.monotonic()
            codes.append(server.stop())
            longest = max(longest, time.monotonic() - begun)
    with serving(folder) as server:
        state = server.wait_for(str(run_id), seconds=300)["state"]
        server.stop()
    found = duckdb_rows(folder / ".headrace/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM big")
    is_exact = state == "succeeded" and found == [(rows, rows)]
    good = codes.count(0)
    return {
        "times": times,
        "exit_0": good,
        "longest_seconds": round(longest, 2),
        "rows": rows,
        "is_exact": is_exact and good == times and longest < GRACE_SECONDS,
    }


def keep(found: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    folder = ROOT / "docs/evidence"
    folder.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    kept = {"date": datetime.now(UTC).date().isoformat(), "commit": commit, "machine": machine, **found}
    (folder / "faults.json").write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
