"""Moving millions of rows, beside a psql pipe that writes the same columns, a hand-written merge, sling and dlt."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks.measuring import Line, median, peak_mb, timed
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
SAME = (
    "select *, timestamptz '2026-01-01' as _headrace_loaded_at, "
    "uuid '01890000-0000-7000-8000-000000000000' as _headrace_run_id from {table}"
)
THREE_RULES = """quality:
  - {rule: not_null, column: id}
  - {rule: between, column: weight, min: 0, max: 1, on_violation: quarantine}
  - {rule: accepted_values, column: status, values: [new, paid, shipped, returned], on_violation: quarantine}
"""
FIVE_RULES = f"""{THREE_RULES}  - {{rule: between, column: amount, min: 0, max: 1000, on_violation: quarantine}}
  - {{rule: null_rate, column: note, max: 0.5, on_violation: warn}}
"""
STEP = "transform: [{sql: select * from batch}]\n"
PIPELINES = {
    "passed": ("shop", "orders", "", "warehouse"),
    "ruled": ("shop", "orders", THREE_RULES, "warehouse"),
    "stepped": ("shop", "orders", STEP, "warehouse"),
    "five_rules": ("shop", "orders", STEP + FIVE_RULES, "warehouse"),
    "inside": ("shop", "orders", "", "shop"),
    "embedded": ("shop", "orders", STEP + FIVE_RULES, "default"),
    "merged": ("shop", "changed", "", "warehouse"),
}
CHANGED = """
create table changed as
select id, customer_id, amount + 1 as amount, 'changed'::text as status, created_at, ship_date, is_gift, ref, weight,
note
from orders where id % 10 = 0
"""
NAMES = ("customer_id", "amount", "status", "created_at", "ship_date", "is_gift", "ref", "weight", "note")
METADATA = ("_headrace_loaded_at", "_headrace_run_id")
COPIES = 5
"""Timed rounds; the medians of few are moved by whatever else the machine does."""
DLT = ("dlt[postgres,parquet]", "sqlalchemy<2.1", "psycopg2-binary", "psycopg[binary]", "connectorx", "pandas")
SLING = "sling-linux-amd64==1.4.11"


def copying(database: PostgresServer, folder: Path, rows: int, *, peers: bool) -> Iterator[Line]:
    """Postgres to Postgres in every way, checkpoints on; the first round is thrown away."""
    # What one copy leaves to be done must not be done while the next one is timed.
    database.psql("alter system set autovacuum = off")
    database.psql("select pg_reload_conf()")
    make_tables(database, rows)
    make_project(database, folder)
    actions: dict[str, Callable[[], float]] = {
        "psql": lambda: timed(lambda: _psql_pipe(database, "orders", "orders_psql")),
        "bare": lambda: _bare_copy(database),
        "by_hand": lambda: timed(lambda: _merge_by_hand(database)),
    }
    with serving(folder) as server:
        for name in PIPELINES:
            actions[name] = partial(copied, server, name, rows)
        found: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(COPIES + 1):
            for name, action in actions.items():
                empty(database, name)
                found[name].append(action())
    times = {name: median(values) for name, values in found.items()}
    for measure, ours, theirs, goal in (
        (f"pass-through, {rows:,} rows, seconds beside a psql pipe", "passed", "psql", "≤ 1.25"),
        ("with three rules, beside the pipe", "ruled", "psql", "≤ 1.80"),
        ("within the database, beside the pipe", "inside", "psql", "none set"),
        ("a step and five rules, through Arrow, beside the pipe", "five_rules", "psql", "none set"),
        ("exactly once, beside the same copy without checkpoints", "passed", "bare", "≤ 1.20"),
        ("five rules, beside the same copy without rules", "five_rules", "stepped", "≤ 1.25"),
        ("merge of 10 %, beside a hand-written stage and MERGE", "merged", "by_hand", "≤ 1.30"),
        ("Postgres → DuckDB, beside Postgres → Postgres", "embedded", "five_rules", "≤ 1.00"),
    ):
        yield measure, times[ours], times[theirs], goal
    if peers:
        theirs = {"sling 1.4.11": _sling(database)}
        for backend in ("connectorx", "pyarrow"):
            version, seconds = _dlt(database, backend)
            theirs[f"dlt {version} ({backend})"] = seconds
        for peer, seconds in theirs.items():
            goal = "≤ 0.20" if "sling" in peer else "≤ 0.14"
            yield f"the same table, beside {peer}", times["passed"], seconds, goal
            yield f"with three rules, which it has not, beside {peer}", times["ruled"], seconds, goal


def remembering(database: PostgresServer, folder: Path, sizes: tuple[int, ...]) -> Iterator[Line]:
    """Peak memory of every way, and its time per row, at two sizes; each way has a server of its own."""
    seconds: dict[str, list[float]] = {}
    for rows in sizes:
        make_tables(database, rows)
        make_project(database, folder / str(rows))
        for name in ("passed", "ruled", "five_rules", "merged"):
            with serving(folder / str(rows)) as server:
                idle = peak_mb(server.process.pid)
                empty(database, name)
                seconds.setdefault(name, []).append(copied(server, name, rows))
                above = peak_mb(server.process.pid) - idle
            yield f"VmHWM above idle, {name}, {rows:,} rows, MB beside the limit", above, 200.0, "≤ 1.00"
    for name, times in seconds.items():
        ours, theirs = times[-1] / sizes[-1] * 1e6, times[0] / sizes[0] * 1e6
        yield f"seconds per million rows, {name}, at {sizes[-1]:,} beside {sizes[0]:,}", ours, theirs, "≤ 1.25"


def make_tables(database: PostgresServer, rows: int) -> None:
    for name in (
        "orders",
        "changed",
        "orders_psql",
        "stage",
        "orders_by_hand",
        *(f"orders_{name}" for name in PIPELINES),
    ):
        database.psql(f"drop table if exists {name}")
    database.psql("drop table if exists _headrace_checkpoint, _headrace_quarantine, _headrace_owner")
    database.psql(ORDERS.format(rows=rows))
    database.psql("alter table orders add primary key (id)")
    database.psql(CHANGED)
    database.psql("alter table changed add primary key (id)")
    for name in ("orders_psql", "stage"):
        database.psql(f"create table {name} as {SAME.format(table='orders')} limit 0")
    for name in ("orders_by_hand", "orders_merged"):
        database.psql(f"create table {name} as {SAME.format(table='orders')}")
        database.psql(f"alter table {name} add primary key (id)")
    database.psql("vacuum analyze")


def make_project(database: PostgresServer, folder: Path) -> None:
    for name in ("connections", "pipelines"):
        (folder / name).mkdir(parents=True)
    (folder / "headrace.toml").write_text("[settings]\n")
    for name in ("shop", "warehouse"):
        text = postgres_connection(f"{database.url}/postgres", name)
        (folder / f"connections/{name}.yaml").write_text(text)
    for name, (source, table, work, destination) in PIPELINES.items():
        mode = ", mode: merge, key: [id]" if name == "merged" else ""
        (folder / f"pipelines/{name}.yaml").write_text(
            f"version: 1\npipeline: {name}\nsource: {{connection: {source}, table: {table}}}\n{work}"
            f"destination: {{connection: {destination}, table: orders_{name}{mode}}}\n"
        )
    applied = headrace(folder, "apply")
    assert applied.returncode == 0, applied.stderr


def empty(database: PostgresServer, name: str) -> None:
    """Make room for a copy, and let the server finish what the one before has left."""
    if name in ("psql", "bare", "by_hand"):
        database.psql("truncate orders_psql, stage")
    elif name not in ("merged", "embedded"):
        database.psql(f"drop table if exists orders_{name}")
    database.psql("checkpoint")


def copied(server: Server, name: str, rows: int) -> float:
    """Seconds from the trigger to the end, by the run's own times: to ask often would cost what is measured."""
    run = server.call("POST", f"/v1/pipelines/{name}/trigger").body
    while (done := server.call("GET", f"/v1/runs/{run['id']}").body)["state"] in ("queued", "running"):
        time.sleep(0.5)
    expected = rows // 10 if name == "merged" else rows
    if done["state"] != "succeeded" or done["report"]["counts"]["used"] != expected:
        raise SystemExit(f"the copy failed: {done['error']}")
    moments = [datetime.fromisoformat(done[name]) for name in ("created_at", "finished_at")]
    return (moments[1] - moments[0]).total_seconds()


def _psql_pipe(database: PostgresServer, table: str, into: str) -> None:
    command = [str(database.psql_path), "-h", "127.0.0.1", "-p", str(database.port), "-U", "postgres", "-qc"]
    reading = [*command, f"copy ({SAME.format(table=table)}) to stdout (format binary)"]
    with subprocess.Popen(reading, stdout=subprocess.PIPE) as pipe:
        subprocess.run([*command, f"copy {into} from stdin (format binary)"], stdin=pipe.stdout, check=True)


def _merge_by_hand(database: PostgresServer) -> None:
    """What one would write by hand: the changed rows into a stage, and one MERGE."""
    _psql_pipe(database, "changed", "stage")
    changed = ", ".join(f"{name} = stage.{name}" for name in (*NAMES, *METADATA))
    every = ("id", *NAMES, *METADATA)
    database.psql(
        "merge into orders_by_hand as target using stage on target.id = stage.id when matched then update set "
        f"{changed} when not matched then insert ({', '.join(every)}) values "
        f"({', '.join(f'stage.{name}' for name in every)})"
    )


def _bare_copy(database: PostgresServer) -> float:
    """Seconds of the copy that ours is, less its promises."""
    script = Path(__file__).parent / "peers/bare_copy.py"
    arguments = [f"{database.url}/postgres", "orders", SAME.removeprefix("select ").removesuffix(" from {table}")]
    command = [sys.executable, str(script), *arguments, "orders_psql", "50000"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _sling(database: PostgresServer) -> float:
    """Seconds of a full refresh by sling; its binary comes in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "-qq", "install", "--no-deps", "-t", folder, SLING], check=True)
        binary = next(path for path in Path(folder).rglob("sling*") if path.is_file() and path.stat().st_size > 10**7)
        binary.chmod(0o755)
        url = f"{database.url.replace('postgres@', 'postgres:x@')}/postgres?sslmode=disable"
        command = [str(binary), "run", "--src-conn", url, "--src-stream", "public.orders", "--tgt-conn", url]
        command += ["--tgt-object", "public.orders_sling", "--mode", "full-refresh"]
        return timed(lambda: _quietly(command, {"SLING_DISABLE_TELEMETRY": "true", "HOME": folder}))


def _dlt(database: PostgresServer, backend: str) -> tuple[str, float]:
    """Version and seconds of a replacing load by dlt, in an environment of its own, as its dependencies clash with
    ours.
    """
    home = Path(tempfile.gettempdir()) / "headrace-bench-dlt"
    if not (home / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([home / "bin/pip", "-qq", "install", *DLT], check=True)
    script = Path(__file__).parent / "peers/dlt_copy.py"
    url = f"{database.url.replace('postgres@', 'postgres:x@')}/postgres"
    done = subprocess.run([home / "bin/python", script, url, backend], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"dlt did not copy: {done.stderr[-2000:]}")
    version, seconds = done.stdout.split()[-2:]
    return version, float(seconds)


def _quietly(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
