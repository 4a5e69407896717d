"""What must be true however a run died: a seeded source of every type, the verdict over its copy, and the audits.

The verdict and the audits run in the tests' own process, which wrote nothing: EXCEPT ALL both ways, with types.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from tests.databases import postgres

ROWS = 100_000
KEPT = "id % 101 <> 0 AND grp <= 989"

_POSTGRES_SOURCE = """
create table events (
  id bigint primary key, grp int, small smallint, amount numeric(12, 2), note text, at timestamptz not null,
  naive timestamp, day date, t time, flag boolean, weight double precision, light real, ref uuid, raw bytea, doc jsonb
);
insert into events
select g, g % 1000, (g % 32000)::smallint,
  case when g % 17 = 0 then null else ((g * 7919) % 100000000)::numeric / 100 end,
  case when g % 13 = 0 then null when g % 29 = 0 then '' else 'é "' || md5(g::text) || E'" \\\\ \t ' end,
  timestamptz '2025-01-01 00:00:00+00' + (g / 50) * interval '1 second',
  timestamp '1999-12-31 23:59:59.999999' + g * interval '1 microsecond',
  date '2025-01-01' + (g % 365)::int,
  case when g % 97 = 0 then time '24:00' else time '00:00' + (g % 86400) * interval '1 second' end, g % 3 = 0,
  case g % 11 when 0 then 'NaN'::float8 when 1 then 'Infinity' when 2 then '-Infinity' when 3 then null else g / 7.0 end,
  (g % 100) / 4.0, md5(g::text)::uuid, decode(md5(g::text), 'hex'), jsonb_build_object('n', g, 'text', 'ü')
from generate_series(1, {rows}) g;
create index on events (at, id);
create index on events (at, flag);
analyze events
"""
_DUCKDB_SOURCE = """
create table events as
select g::bigint as id, (g % 1000)::int as grp, (g % 32000)::smallint as small,
  case when g % 17 = 0 then null else (((g * 7919) % 100000000) / 100)::decimal(12, 2) end as amount,
  case when g % 13 = 0 then null when g % 29 = 0 then '' else 'é "' || md5(g::varchar) || '" \\ 	 ' end as note,
  timestamptz '2025-01-01 00:00:00+00' + to_seconds(g // 50) as at,
  timestamp '1999-12-31 23:59:59.999999' + to_microseconds(g) as naive,
  date '2025-01-01' + (g % 365)::int as day,
  case when g % 97 = 0 then time '24:00:00' else time '00:00:00' + to_seconds(g % 86400) end as t, g % 3 = 0 as flag,
  case g % 11 when 0 then 'NaN'::double when 1 then 'Infinity'::double when 2 then '-Infinity'::double when 3 then null
    else g / 7.0 end as weight,
  ((g % 100) / 4.0)::float as light, md5(g::varchar)::uuid as ref, unhex(md5(g::varchar)) as raw,
  json_object('n', g, 'text', 'ü') as doc
from range(1, {rows} + 1) r(g)
"""
PIPELINE = """version: 1
pipeline: events
source: {{{place}table: events, key: [{key}]{cursor}, partitions: {{column: id, count: {streams}}}}}
{work}destination: {{{place}table: {table}, mode: {mode}{publish}}}
run: {{batch_rows: {batch_rows}, parallelism: 2}}
"""

WORK = """transform:
  - sql: select *, grp * 2 as twice from batch where id % 101 <> 0
quality:
  - {rule: not_null, column: id}
  - {rule: between, column: grp, max: 989, on_violation: quarantine}
"""

Rows = list[tuple[Any, ...]]
Query = Callable[[str], Rows]


@dataclass(frozen=True)
class Expected:
    """What the oracle knows of the source."""

    rows: int
    read: int
    filtered: int
    quarantined: int


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a copy; all empty when it is exact."""

    missing: int
    doubled: int
    problems: tuple[str, ...]

    @property
    def is_exact(self) -> bool:
        return not (self.missing or self.doubled or self.problems)


def pipeline(
    *,
    table: str,
    mode: str = "append",
    publish: str | None = None,
    streams: int = 2,
    batch_rows: int = 2000,
    place: str = "",
    is_plain: bool = False,
    key: str = "id",
) -> str:
    """The pipeline over the source; a plain one looks at no row, so that rows take the shorter ways."""
    unique = "  - {rule: unique, columns: [id]}\n" if publish == "run" else ""
    return PIPELINE.format(
        key=key,
        table=table,
        mode=f"{mode}, key: [id]" if mode == "merge" else mode,
        publish=f", publish: {publish}" if publish else "",
        cursor="" if mode == "replace" else ", cursor: {column: at}",
        streams=streams,
        batch_rows=batch_rows,
        work=("quality:\n" + unique if unique else "") if is_plain else WORK + unique,
        place=f"connection: {place}, " if place else "",
    )


def duckdb_query(path: Path) -> Query:
    def query(sql: str) -> Rows:
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()

    return query


def postgres_query(url: str) -> Query:
    return partial(postgres, url)


def make_source(query: Query, *, store: str, rows: int = ROWS) -> Expected:
    """Create `events` and count what a pipeline over it must do."""
    text = _POSTGRES_SOURCE if store == "postgres" else _DUCKDB_SOURCE
    for statement in text.format(rows=rows).split(";"):
        query(statement)
    read, filtered, quarantined = query(
        "SELECT count(*), sum(CASE WHEN id % 101 = 0 THEN 1 ELSE 0 END), "
        "sum(CASE WHEN id % 101 <> 0 AND grp > 989 THEN 1 ELSE 0 END) FROM events"
    )[0]
    return Expected(int(read) - int(filtered) - int(quarantined), int(read), int(filtered), int(quarantined))


def plainly(expected: Expected) -> Expected:
    """What a plain pipeline does with the same source."""
    return Expected(expected.read, expected.read, 0, 0)


def judge(
    query: Query,
    expected: Expected,
    table: str,
    *,
    has_cursor: bool = True,
    runs: int = 1,
    is_plain: bool = False,
) -> Verdict:
    """Compare a finished copy with its source, both ways and with types, and its checkpoint with the counts.

    `runs` is how many runs came to their end; without a cursor each of them reads everything.
    """
    names = [name for (name, _) in _types(query, "events")]
    columns = ", ".join(f'"{name}"' for name in names)
    left = (
        f"SELECT {columns} FROM events" if is_plain else f"SELECT {columns}, grp * 2 AS twice FROM events WHERE {KEPT}"
    )
    right = f"SELECT {columns}{'' if is_plain else ', twice'} FROM {table}"
    missing = int(query(f"SELECT count(*) FROM ({left} EXCEPT ALL {right}) AS x")[0][0])
    doubled = int(query(f"SELECT count(*) FROM ({right} EXCEPT ALL {left}) AS x")[0][0])
    problems = []
    if _types(query, table)[: len(names)] != _types(query, "events"):
        problems.append(f"types differ: {_types(query, table)} and {_types(query, 'events')}")
    head = query("SELECT state, seq FROM _headrace_checkpoint WHERE stream = 'head' AND pipeline = 'events'")
    if [state for state, _ in head] != ["idle"]:
        problems.append(f"the head is {head}")
    read_sets = sum(int(seq) for _, seq in head) // 2  # Each was opened once and published once.
    counts = query(
        "SELECT sum(read), sum(used), sum(filtered), sum(quarantined), sum(failed) FROM _headrace_checkpoint "
        "WHERE stream <> 'head' AND pipeline = 'events'"
    )[0]
    wanted = (expected.read, expected.rows, expected.filtered, expected.quarantined, 0)
    found = tuple(int(count) for count in counts)
    # A run that comes after one which had ended, or which completes one that was given up, finds nothing new to read.
    if found != wanted and not (has_cursor and read_sets > 1 and found == (0, 0, 0, 0, 0)):
        problems.append(f"counts are {counts}, not {wanted}")
    kept = query(f"SELECT count(*) FROM _headrace_quarantine WHERE target = '{table}' GROUP BY read_set")
    times = (1 if has_cursor else runs) if expected.quarantined else 0
    if kept != [(expected.quarantined,)] * times:
        problems.append(f"{kept} rows in quarantine by read set, not {times} times {expected.quarantined}")
    stages = query(
        "SELECT count(*) FROM information_schema.tables WHERE table_name LIKE '\\_headrace\\_stage%' ESCAPE '\\'"
    )
    if stages[0][0]:
        problems.append(f"{stages[0][0]} staging tables are left")
    return Verdict(missing, doubled, tuple(problems))


def forget(query: Query, table: str) -> None:
    """Remove a copy and everything Headrace remembers of it."""
    for name in (table, "_headrace_checkpoint", "_headrace_quarantine", "_headrace_owner"):
        query(f"DROP TABLE IF EXISTS {name}")


def _types(query: Query, table: str) -> Rows:
    return query(
        "SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_name = '{table}' AND column_name NOT LIKE '%headrace%' ORDER BY ordinal_position"
    )


# One query per invariant over the platform's records; each must find nothing.
AUDITS = {
    "R1": "SELECT r.id FROM runs r WHERE r.state NOT IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', " "'skipped')",
    "R2": (
        "SELECT a.run_id FROM run_transitions a JOIN run_transitions b ON b.run_id = a.run_id AND b.id > a.id "
        "WHERE a.after IN ('succeeded', 'failed', 'cancelled', 'skipped') AND b.after <> a.after"
    ),
    "R3": (
        "SELECT a.run_id FROM run_transitions a JOIN run_transitions b ON b.run_id = a.run_id AND b.id > a.id "
        "WHERE b.fence < a.fence AND b.reason NOT IN ('cancel_requested', 'cancelled')"
    ),
    "R5": "SELECT id FROM runs WHERE state = 'succeeded' AND (report IS NULL OR read_set IS NULL)",
    "R6": (
        "SELECT b.run_id FROM run_transitions a JOIN run_transitions b ON b.run_id = a.run_id AND b.id = "
        "(SELECT min(c.id) FROM run_transitions c WHERE c.run_id = a.run_id AND c.id > a.id) WHERE b.before <> a.after"
    ),
    "S3": (
        "SELECT work_name, cause FROM runs WHERE cause IS NOT NULL GROUP BY work_kind, work_name, cause "
        "HAVING count(*) > 1"
    ),
    "lanes": (
        "SELECT work_name, lane FROM runs WHERE state = 'running' GROUP BY org_id, work_kind, work_name, lane "
        "HAVING count(*) > 1"
    ),
    "ended": "SELECT id FROM runs WHERE state IN ('succeeded', 'failed', 'cancelled') AND finished_at IS NULL",
}  # fmt: skip


def audit(query: Query) -> list[str]:
    """Name the invariants that the records break."""
    return [name for name, sql in AUDITS.items() if query(sql)]


def sqlite_query(path: Path) -> Query:
    def query(sql: str) -> Rows:
        with sqlite3.connect(path, timeout=10) as connection:
            return connection.execute(sql).fetchall()

    return query
