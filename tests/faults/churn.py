"""`make churn MINUTES=10`: random transactions of many writers beside incremental pipelines; in the end both sides are
equal.

Each round draws its writers anew: short and long transactions, such that read first, are prepared, rolled back, in part
rolled back to a savepoint, or are several in one message. Pipelines of two roles and every kind of cursor run again and
again meanwhile. A row may be missing at the end only where a report had said what it assumed or could not know.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.identity.principal import Principal, Role
from domain.runs.run import RunState
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings
from infrastructure.stores import cursor_ends
from tests.e2e.projects import postgres_connection
from tests.servers import PostgresServer, StandbyServer

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))
ROLE = "churn_reader"
# Each table's cursor: type, what the source puts there, and the options of the pipelines that read it.
TABLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "moments": ("timestamptz", "now()", {}),
    "ticks": ("timestamptz", "clock_timestamp()", {}),
    "seconds": ("timestamptz(0)", "now()", {}),
    "west": ("timestamp", "now() AT TIME ZONE 'America/New_York'", {}),
    "declared": ("timestamp", "now() AT TIME ZONE 'Asia/Kathmandu'", {"timezone": "Asia/Kathmandu"}),
    "numbers": ("bigint", "nextval('counted')", {}),
}
HASTY = {"patience": "1s"}
_AT_ONCE = 6


@dataclass
class Pipeline:
    """One pipeline of a round, and what its reports said."""

    table: str
    connection: str
    name: str
    cursor: dict[str, Any]
    mode: str = "append"
    said: set[str] = field(default_factory=set)
    runs: int = 0

    @property
    def document(self) -> str:
        source = {
            "connection": self.connection,
            "table": self.table,
            "key": ["id"],
            "cursor": {"column": "at", **self.cursor},
        }
        destination: dict[str, Any] = {"table": self.name, "mode": self.mode}
        if self.mode == "merge":
            destination["key"] = ["id"]
        return json.dumps({"version": 1, "pipeline": self.name, "source": source, "destination": destination})


@dataclass
class Round:
    """What one round did."""

    problems: list[str] = field(default_factory=list)
    rows: int = 0
    runs: int = 0
    transactions: Counter[str] = field(default_factory=Counter)
    excused: int = 0


class Writer:
    """A session that makes one random transaction after another."""

    def __init__(self, connection: Any, number: int, seed: int, ended: asyncio.Event, done: Counter[str]) -> None:
        self._connection = connection
        self._chance = random.Random(seed * 1000 + number)
        self._ended = ended
        self._done = done
        self._longest = self._chance.choice([2.0, 5.0])
        self._key = number * 1_000_000

    async def write(self) -> None:
        """Go on until told to end."""
        kinds = [
            self.short,
            self.short,
            self.long,
            self.reads_first,
            self.prepared,
            self.rolled_back,
            self.savepoint,
            self.looks,
        ]
        if self._chance.random() < 0.3:
            kinds.append(self.one_message)
        while not self._ended.is_set():
            kind = self._chance.choice(kinds)
            await kind()
            self._done[kind.__name__] += 1
            await asyncio.sleep(self._chance.choice([0, 0, 0.01, 0.1]))

    async def short(self) -> None:
        await self._insert()

    async def long(self) -> None:
        async with self._connection.transaction():
            await self._insert()
            await self._pauses()
            await self._insert()

    async def reads_first(self) -> None:
        async with self._connection.transaction():
            await self._connection.fetch("SELECT count(*) FROM moments")
            await self._pauses()
            await self._insert()

    async def prepared(self) -> None:
        name = f"churn {self._key}"
        await self._connection.execute("BEGIN")
        await self._insert()
        await self._connection.execute(f"PREPARE TRANSACTION '{name}'")
        await self._pauses()
        end = self._chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
        await self._connection.execute(f"{end} PREPARED '{name}'")

    async def rolled_back(self) -> None:
        await self._connection.execute("BEGIN")
        await self._insert()
        await self._pauses()
        await self._connection.execute("ROLLBACK")

    async def savepoint(self) -> None:
        async with self._connection.transaction():
            await self._connection.execute("SAVEPOINT here")
            await self._insert()
            await self._connection.execute("ROLLBACK TO here")
            await self._pauses()
            await self._insert()

    async def looks(self) -> None:
        """Somebody who reads for long."""
        async with self._connection.transaction():
            await self._connection.fetch("SELECT count(*) FROM moments")
            await self._pauses()

    async def one_message(self) -> None:
        """Transactions that share the time of their message; only a role that sees their start may know."""
        self._key += 2
        row = "INSERT INTO messages (id) VALUES"
        await self._connection.execute(
            f"BEGIN; {row} ({self._key - 1}); SELECT pg_sleep(0.3); COMMIT; SELECT pg_sleep(0.2); {row} ({self._key})"
        )

    async def _insert(self) -> None:
        for table in self._chance.sample(list(TABLES), self._chance.randint(1, len(TABLES))):
            self._key += 1
            await self._connection.execute(f"INSERT INTO {table} (id) VALUES ({self._key})")
        if self._chance.random() < 0.5:  # A row of a few that change again and again.
            await self._connection.execute(
                f"INSERT INTO changing (id) VALUES ({self._chance.randrange(10**6)}) "
                "ON CONFLICT (id) DO UPDATE SET at = excluded.at"
            )

    async def _pauses(self) -> None:
        await asyncio.sleep(self._chance.choice([0.05, 0.3, 1.0, 2.0, self._longest]))


@dataclass(frozen=True)
class Plan:
    """How long a round takes, and what is part of it: so many seconds, and at least so many laps of all pipelines.

    A run that waits for young transactions finds few open at its end, so `wait_seconds` bounds that while writers are
    at work.
    """

    seconds: float
    wait_seconds: float = cursor_ends.WAIT_SECONDS
    laps: int = 1
    tables: tuple[str, ...] = tuple(TABLES)
    writers: int = 5


async def churned(folder: Path, url: str, seed: int, plan: Plan, *, standby: str | None = None) -> Round:
    """One round in a database of its own; `standby` is the address of the same database on a standby."""
    result, ended = Round(), asyncio.Event()
    owner = await asyncpg.connect(url)
    await _prepare(owner)
    plain = url.replace("postgres@", f"{ROLE}@")
    pipelines = _pipelines(plan, with_standby=standby is not None)
    connections = [postgres_connection(url, "sees"), postgres_connection(plain, "plain")]
    if standby is not None:
        await _until_there(owner, standby)
        connections.append(postgres_connection(standby, "standby"))
    settings = load_settings(root=folder, environment={}).settings
    async with running(build_container(settings, folder), with_store=True) as use_cases:
        for text in (*connections, *(pipeline.document for pipeline in pipelines)):
            document = read_text(text, "churn", {})
            await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))
        sessions = [await asyncpg.connect(url) for _ in range(plan.writers)]
        tasks = [
            asyncio.create_task(Writer(session, number + 1, seed, ended, result.transactions).write())
            for number, session in enumerate(sessions)
        ]
        until, laps = time.monotonic() + plan.seconds, 0
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cursor_ends, "WAIT_SECONDS", plan.wait_seconds)
            while (time.monotonic() < until or laps < plan.laps) and not any(task.done() for task in tasks):
                laps += 1
                await _lap(use_cases, pipelines)
        ended.set()
        await asyncio.gather(*tasks)
        if standby is not None:
            await _until_there(owner, standby)
        for _ in range(2):  # Nothing is open any more: what was held back is read now.
            await _lap(use_cases, pipelines)
        for pipeline in pipelines:
            await _compare(use_cases, owner, pipeline, result)
    for session in (*sessions, owner):
        await session.close()
    return result


def _pipelines(plan: Plan, *, with_standby: bool) -> list[Pipeline]:
    found = [
        Pipeline(table, connection, f"{table}_{connection}", TABLES[table][2])
        for table in plan.tables
        for connection in ("sees", "plain", *(["standby"] if with_standby else []))
    ]
    found.append(Pipeline("changing", "plain", "changing_plain", {}, mode="merge"))
    if plan.tables != tuple(TABLES):
        return found
    found += [Pipeline("moments", role, f"hasty_{role}", HASTY) for role in ("sees", "plain")]
    found.append(Pipeline("messages", "sees", "messages_sees", {}))
    return found


async def _prepare(owner: Any) -> None:
    await owner.execute("CREATE SEQUENCE counted")
    tables = {**TABLES, "changing": TABLES["moments"], "messages": TABLES["moments"]}
    for name, (kind, default, _) in tables.items():
        await owner.execute(
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, at {kind} NOT NULL DEFAULT ({default})); "
            f"CREATE INDEX ON {name} (at, id)"
        )
    await owner.execute(
        f"DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}; GRANT SELECT ON SEQUENCE counted TO {ROLE}"
    )


async def _until_there(owner: Any, standby: str) -> None:
    """Come back once the standby has everything that the primary has now."""
    place = await owner.fetchval("SELECT pg_current_wal_flush_lsn()::text")
    other = await asyncpg.connect(standby.rsplit("/", 1)[0] + "/postgres")
    async with asyncio.timeout(60):
        while not await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", place):
            await asyncio.sleep(0.05)
    await other.close()


async def _lap(use_cases: UseCases, pipelines: list[Pipeline]) -> None:
    """Run every pipeline once, some at a time."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def runs(pipeline: Pipeline) -> None:
        async with turn:
            await _runs(use_cases, pipeline)

    await asyncio.gather(*(runs(pipeline) for pipeline in pipelines))


async def _runs(use_cases: UseCases, pipeline: Pipeline) -> None:
    claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun(pipeline.name))
    assert claimed is not None, pipeline.name
    run = await use_cases.executor.execute_to_end(claimed)
    assert run.state is RunState.SUCCEEDED, (pipeline.name, run.error)
    pipeline.runs += 1
    pipeline.said |= set(run.report.cursor if run.report is not None else ())


async def _compare(use_cases: UseCases, owner: Any, pipeline: Pipeline, result: Round) -> None:
    source = Counter(row["id"] for row in await owner.fetch(f"SELECT id FROM {pipeline.table}"))
    spec = await use_cases.states.spec_of(ME, pipeline.name)
    landed: Counter[int] = Counter()
    for row, count in (await use_cases.rehearsal.content(ME, spec)).rows.items():
        landed[int(row.strip("[]").split(",")[0])] += count
    missing, doubled = source - landed, landed - source
    result.rows += landed.total()
    result.runs += pipeline.runs
    if doubled:
        result.problems.append(f"{pipeline.name}: {doubled.total()} rows too many")
    if missing and pipeline.said & {"assumed", "unknown"}:
        result.excused += missing.total()
    elif missing:
        result.problems.append(f"{pipeline.name}: {missing.total()} rows missing, such as {min(missing)}")


def main() -> int:
    """Rounds until the time is over; return how many found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=20, help="of each round")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    primary = PostgresServer()
    standby = StandbyServer(primary, delay_seconds=0.3)
    until, seed, failed = time.monotonic() + arguments.minutes * 60, arguments.seed, 0
    try:
        primary.start()
        standby.start()
        while time.monotonic() < until:
            primary.psql(f"CREATE DATABASE churn_{seed}")
            with tempfile.TemporaryDirectory(prefix="headrace-churn-") as name:
                (Path(name) / "headrace.toml").write_text("[settings]\n")
                urls = [f"{server.url}/churn_{seed}" for server in (primary, standby)]
                found = asyncio.run(
                    churned(
                        Path(name),
                        urls[0],
                        seed,
                        Plan(arguments.seconds, 0.2 if seed % 2 else cursor_ends.WAIT_SECONDS),
                        standby=urls[1],
                    )
                )
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(found.transactions.items()))
            excuse = f", {found.excused} missing as was told" if found.excused else ""
            print(
                f"seed {seed}: {found.rows} rows in {found.runs} runs beside {told}{excuse}: "
                f"{found.problems or 'equal'}",
                flush=True,
            )
            failed += bool(found.problems)
            seed += 1
    finally:
        standby.stop()
        primary.stop()
    return failed


if __name__ == "__main__":
    sys.exit(main())
