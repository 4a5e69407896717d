"""A CSV into DuckDB, every value checked against the guess of its type, beside DuckDB's own CREATE TABLE AS SELECT."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb

from benchmarks.measuring import Line, median, timed
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import write

LOADS = 7
ROWS = """
copy (
  select i as id, 1000000 + (i * 7919) % 9000000 as customer, ((i * 31) % 100000 / 100.0)::decimal(12, 2) as amount,
         'note ' || md5(i::varchar) as note, timestamp '2020-01-01' + interval (i) second as created_at,
         date '2020-01-01' + (i % 1000)::int as ship_date, i % 2 = 0 as is_gift, (i % 977) / 8.0 as weight
  from range({rows}) numbers(i)
) to '{path}' (header)
"""
TYPES = {
    "id": "BIGINT", "customer": "BIGINT", "amount": "DECIMAL(18,2)", "note": "VARCHAR", "created_at": "TIMESTAMP",
    "ship_date": "DATE", "is_gift": "BOOLEAN", "weight": "DECIMAL(18,3)",
}  # fmt: skip
METADATA = ", uuid '01890000-0000-7000-8000-000000000000' as run_id, timestamptz '2026-01-01' as loaded_at"
# Both sides write the same columns: with our two, and without.
TABLES = {"orders": ("", METADATA), "orders_plain": (", metadata_columns: false", "")}
PIPELINE = """version: 1
pipeline: {name}
source: {{connection: landing, path: orders.csv}}
destination: {{table: {name}, mode: replace{more}}}
"""


def loading(folder: Path, rows: int) -> Iterator[Line]:
    """Load about 100 bytes a row; the types of both are those that were guessed."""
    write(folder, "headrace.toml", "[settings]\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    for name, (more, _) in TABLES.items():
        write(folder, f"pipelines/{name}.yaml", PIPELINE.format(name=name, more=more))
    path = folder / "data/orders.csv"
    path.parent.mkdir()
    with duckdb.connect() as connection:
        connection.execute(ROWS.format(rows=rows, path=path))
    applied = headrace(folder, "apply", "--yes")
    assert applied.returncode == 0, applied.stderr
    ours: dict[str, list[float]] = {name: [] for name in TABLES}
    theirs: dict[str, list[float]] = {name: [] for name in TABLES}
    with serving(folder) as server:
        for _ in range(LOADS + 1):
            for name, (_, more) in TABLES.items():
                ours[name].append(_loaded(server, name, rows))
                theirs[name].append(_by_duckdb(path, folder / "theirs.duckdb", more))
    size = path.stat().st_size / 1e6
    for name, columns in (("orders", "with run and time"), ("orders_plain", "without them")):
        measure = f"CSV → DuckDB, {size:,.0f} MB, {columns}, beside CREATE TABLE AS SELECT"
        yield measure, median(ours[name]), median(theirs[name]), "≤ 1.40"


def _loaded(server: Server, name: str, rows: int) -> float:
    run = server.call("POST", f"/v1/pipelines/{name}/trigger").body
    while (done := server.call("GET", f"/v1/runs/{run['id']}").body)["state"] in ("queued", "running"):
        time.sleep(0.2)
    if done["state"] != "succeeded" or done["report"]["counts"]["used"] != rows:
        raise SystemExit(f"the load failed: {done['error']}")
    moments = [datetime.fromisoformat(done[name]) for name in ("created_at", "finished_at")]
    return (moments[1] - moments[0]).total_seconds()


def _by_duckdb(path: Path, database: Path, more: str) -> float:
    database.unlink(missing_ok=True)
    with duckdb.connect(str(database)) as connection:
        return timed(
            lambda: connection.execute(
                f"create table orders as select *{more} from read_csv('{path}', header = true, auto_detect = false, "
                f"columns = {TYPES})"
            )
        )
