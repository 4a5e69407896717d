"""Moving five million rows, beside a psql pipe that writes the same columns, sling, dlt, and a hand-written merge."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import ROUNDS, Line, median, peak_mb, timed
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import postgres_connection
from tests.servers import PostgresServer

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

# The metadata columns that ours writes too.
SAME = "select *, timestamptz '2026-01-01', uuid '01890000-0000-7000-8000-000000000000' from orders"
RULES = """quality:
  - {rule: not_null, column: id}
  - {rule: between, column: weight, min: 0, max: 1, on_violation: quarantine}
  - {rule: accepted_values, column: status, values: [new, paid, shipped, returned], on_violation: quarantine}
"""
PIPELINES = {
    "passed": ("shop", "orders", "", "warehouse"),
    "ruled": ("shop", "orders", RULES, "warehouse"),
    "arrow": ("shop", "orders", "transform: [{sql: select * from batch}]\n" + RULES, "warehouse"),
    "inside": ("shop", "orders", "", "shop"),
    "embedded": ("shop", "orders", "", "default"),
}
DLT = ("dlt[postgres,sql_database,parquet]", "psycopg2-binary", "psycopg[binary]", "connectorx", "pandas")
SLING = "sling-linux-amd64==1.4.11"


def copying(database: PostgresServer, folder: Path, rows: int, *, peers: bool) -> Iterator[Line]:
    """Postgres to Postgres in every way, checkpoints on; the first round is thrown away."""
    database.psql(ORDERS.format(rows=rows))
    database.psql("alter table orders add primary key (id)")
    database.psql("vacuum analyze orders")
    database.psql(f"create table orders_psql as {SAME} limit 0")
    _project(database, folder)
    times: dict[str, list[float]] = {name: [] for name in ("psql", *PIPELINES)}
    with serving(folder) as server:
        idle = peak_mb(server.process.pid)
        for _ in range(ROUNDS + 1):
            times["psql"].append(timed(lambda: _psql_pipe(database)))
            for name in PIPELINES:
                times[name].append(timed(lambda name=name: _ours(database, server, name, rows)))  # type: ignore[misc]
                if name == "arrow":
                    above = peak_mb(server.process.pid) - idle
    pipe = median(times["psql"])
    yield f"pass-through, {rows:,} rows, seconds beside a psql pipe", median(times["passed"]), pipe, "≤ 1.25"
    yield "with three rules, seconds beside the pipe", median(times["ruled"]), pipe, "≤ 1.80"
    yield "with a step and three rules through Arrow, beside the pipe", median(times["arrow"]), pipe, "none set"
    yield "within the database, seconds beside the pipe", median(times["inside"]), pipe, "none set"
    yield (
        "Postgres → DuckDB, seconds beside Postgres → Postgres",
        median(times["embedded"]),
        median(times["arrow"]),
        "≤ 1.00",
    )
    yield "VmHWM above idle after all ways but DuckDB, MB beside the limit", above, 200.0, "≤ 1.00"
    if peers:
        ours = median(times["ruled"])
        yield "with three rules, seconds beside sling 1.4.11", ours, _sling(database), "≤ 0.20"
        for backend in ("connectorx", "pyarrow"):
            yield f"with three rules, seconds beside dlt ({backend})", ours, _dlt(database, backend), "≤ 0.14"


def _project(database: PostgresServer, folder: Path) -> None:
    for name in ("connections", "pipelines"):
        (folder / name).mkdir(parents=True)
    (folder / "headrace.toml").write_text("[settings]\n")
    for name in ("shop", "warehouse"):
        text = postgres_connection(f"{database.url}/postgres", name)
        (folder / f"connections/{name}.yaml").write_text(text)
    for name, (source, table, work, destination) in PIPELINES.items():
        (folder / f"pipelines/{name}.yaml").write_text(
            f"version: 1\npipeline: {name}\nsource: {{connection: {source}, table: {table}}}\n{work}"
            f"destination: {{connection: {destination}, table: orders_{name}}}\n"
        )
    applied = headrace(folder, "apply")
    assert applied.returncode == 0, applied.stderr


def _ours(database: PostgresServer, server: Server, name: str, rows: int) -> None:
    database.psql(f"drop table if exists orders_{name}")
    run = server.call("POST", f"/v1/pipelines/{name}/trigger").body
    while (done := server.call("GET", f"/v1/runs/{run['id']}").body)["state"] in ("queued", "running"):
        time.sleep(0.1)
    if done["state"] != "succeeded" or done["report"]["counts"]["used"] != rows:
        raise SystemExit(f"the copy failed: {done['error']}")


def _psql_pipe(database: PostgresServer) -> None:
    command = [str(database.psql_path), "-h", "127.0.0.1", "-p", str(database.port), "-U", "postgres", "-qc"]
    database.psql("truncate orders_psql")
    with subprocess.Popen([*command, f"copy ({SAME}) to stdout (format binary)"], stdout=subprocess.PIPE) as reading:
        subprocess.run([*command, "copy orders_psql from stdin (format binary)"], stdin=reading.stdout, check=True)


def _sling(database: PostgresServer) -> float:
    """Seconds of a full refresh by sling; its binary comes in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "-q", "install", "--no-deps", "-t", folder, SLING], check=True)
        binary = next(path for path in Path(folder).rglob("sling*") if path.is_file() and path.stat().st_size > 10**7)
        binary.chmod(0o755)
        url = f"{database.url.replace('postgres@', 'postgres:x@')}/postgres?sslmode=disable"
        command = [str(binary), "run", "--src-conn", url, "--src-stream", "public.orders", "--tgt-conn", url]
        command += ["--tgt-object", "public.orders_sling", "--mode", "full-refresh"]
        return timed(lambda: _quietly(command, {"SLING_DISABLE_TELEMETRY": "true", "HOME": folder}))


def _dlt(database: PostgresServer, backend: str) -> float:
    """Seconds of a replacing load by dlt, in an environment of its own, as its dependencies clash with ours."""
    home = Path(tempfile.gettempdir()) / "headrace-bench-dlt"
    if not (home / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/pip", "-q", "install", *DLT], check=True)
    script = Path(__file__).parent / "peers/dlt_copy.py"
    url = f"{database.url.replace('postgres@', 'postgres:x@')}/postgres"
    done = subprocess.run([home / "bin/python", script, url, backend], check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def _quietly(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
