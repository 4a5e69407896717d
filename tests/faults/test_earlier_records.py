"""Records that the version before wrote, and left in the middle of its work: they are brought up to date, and every run
of them comes to its end.

`records_0003/` holds what a process of that version had written when it was killed in the middle of a batch: its
records on SQLite and on Postgres, and its store beside each. `orders` had loaded once and been reset, and holds its
lane with three rows of eight; a second run waits for the lane. `after_orders` followed once and was asked for again.
`flaky` waits to try again after its first batch. `gone` ran twice, was reset and deleted. One of two keys was revoked.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pytest

from domain.errors import UnavailableError
from domain.runs.run import Run, RunState
from domain.runs.work import WorkKind
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.use_cases import UseCases
from infrastructure.metadata.records import SqlRecords, run_migrations
from infrastructure.settings.sources import load_settings
from tests.databases import postgres
from tests.e2e.projects import postgres_environment
from tests.e2e.tables import duckdb_rows
from tests.faults.test_keys import ME, put

LEFT = Path(__file__).parent / "records_0003"
FENCES = {"after_orders": 1, "flaky": 2, "gone": 3, "orders": 3, "untouched": 0}
GONE = (
    "version: 1\npipeline: gone\nsource: {table: source, key: [id], cursor: {column: id}}\n"
    "transform: [{sql: select * from batch}]\ndestination: {table: gone_copy}\n"
)


async def left_behind(kind: str, project: Path, url: str) -> Mapping[str, str]:
    """What was left, in a project; the settings that find it."""
    home = project / ".headrace"
    home.mkdir()
    with duckdb.connect(str(home / "data.duckdb")) as store:
        store.execute((LEFT / f"{kind}_store.sql").read_text())
    script = (LEFT / f"{kind}.sql").read_text()
    if kind == "sqlite":
        with sqlite3.connect(home / "records.db") as records:
            records.executescript(script)
        return {}
    old = SqlRecords(url.replace("postgresql://", "postgresql+asyncpg://"), upgrade_on_open=False)
    with pytest.raises(UnavailableError):
        await old.open()
    async with old._opened().begin() as connection:
        await connection.exec_driver_sql("CREATE SCHEMA headrace")
        await connection.run_sync(lambda sync: run_migrations(sync, "0003"))
        for statement in script.strip().split(";\n"):
            await connection.exec_driver_sql(statement)
    await old.close()
    return {**postgres_environment(url), "HEADRACE_STORE__KIND": "duckdb", "HEADRACE_METADATA__KIND": "postgres"}


def fences(kind: str, project: Path, url: str) -> dict[str, int]:
    """Where the fences of all pipelines stand."""
    sql = "SELECT work_name, fence FROM {}lanes WHERE org_id = 'default' AND work_kind = 'pipeline'"
    if kind == "postgres":
        return dict(postgres(url, sql.format("headrace.")))
    with sqlite3.connect(project / ".headrace/records.db") as records:
        return dict(records.execute(sql.format("")).fetchall())


async def to_the_end(use_cases: UseCases) -> list[Run]:
    """Take every run that is due and bring it to its end, until none is; the claims that were made for it."""
    claims: list[Run] = []
    while rings := await use_cases.tender.take(9):
        for ring in rings:
            claimed = await use_cases.claimer.claim(ME.scope, ring.run_id)
            if claimed is not None:
                claims.append(claimed)
                await use_cases.executor.perform(claimed)
        await use_cases.announcer.flush()
        await use_cases.doorbell.settle()
        async with use_cases.launcher.records.unit(ME.scope) as unit:
            await unit.runs.forget_rings()  # As after a while, or in another process.
            await unit.commit()
    return claims


@pytest.mark.invariant("D1", "R1", "R3")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_what_the_version_before_left_goes_on_under_higher_fences(
    kind: str, project: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_database") if kind == "postgres" else ""
    environment = await left_behind(kind, project, url)
    async with running(build_container(load_settings(root=project, environment=environment).settings, project),
                       with_store=True) as use_cases:  # fmt: skip
        assert fences(kind, project, url) == FENCES
        before = {run.id: run for run in (await use_cases.history.runs(ME)).items}
        [held] = [run for run in before.values() if run.state is RunState.RUNNING]
        first = min(run.id for run in before.values())
        lines, events = await use_cases.history.logs(ME, first)
        async with use_cases.launcher.records.read(ME.scope) as unit:
            keys = await unit.identity.keys("default")
            found = {key.subject: await unit.identity.find_key(key.prefix) for key in keys}
            assert await unit.followers.of([("default", "orders")]) == {("default", "orders"): ["after_orders"]}

        claims = await to_the_end(use_cases)
        async with use_cases.launcher.records.unit(ME.scope) as unit:
            # Whoever held it before, and is not dead after all.
            assert not await unit.runs.release(held.id, held.fence, reason="late")
        ended = {run.id: run for run in (await use_cases.history.runs(ME)).items}
        await put(use_cases, GONE)
        async with use_cases.launcher.records.unit(ME.scope) as unit:
            reset = await unit.runs.next_fence("default", WorkKind.PIPELINE.named("gone"))
            assert await unit.runs.next_fence("default", WorkKind.PIPELINE.named("untouched")) == 1
        history = {run.id: await use_cases.history.transitions(ME, run.id) for run in claims}

    assert Counter((run.work.name, run.state.value) for run in before.values()) == {
        ("orders", "succeeded"): 1, ("orders", "running"): 1, ("orders", "queued"): 1, ("after_orders", "succeeded"): 1,
        ("after_orders", "queued"): 1, ("flaky", "queued"): 1, ("gone", "succeeded"): 2,
    }  # fmt: skip
    assert {(run.work.kind, run.work.revision, run.lane) for run in before.values()} == {(WorkKind.PIPELINE, 1, "main")}
    assert [line.reason for line in lines] == ["requested", "claimed", "published"]
    assert [event.event_type for event in events] == ["pipeline.queued", "pipeline.started", "pipeline.completed"]
    assert {subject: bool(key) for subject, key in found.items()} == {"a-viewer": True, "a-runner": False}

    assert {run.state for run in ended.values()} == {RunState.SUCCEEDED}
    counted: dict[str, list[int]] = {}
    for claim in claims:
        counted.setdefault(claim.work.name, [FENCES[claim.work.name]]).append(claim.fence)
    assert all(numbers == sorted(set(numbers)) for numbers in counted.values()), counted
    assert (len(counted["orders"]), counted["orders"][1], counted["flaky"][1], reset) == (3, 4, 3, 4)
    assert not [line for each in history.values() for line in each if line.reason == "fence_raised"]
    rows = {
        table: Counter(n for (n,) in duckdb_rows(project / ".headrace/data.duckdb", f"SELECT id FROM {table}"))
        for table in ("orders_copy", "after_copy", "flaky_copy", "gone_copy")
    }
    assert rows["orders_copy"] == rows["after_copy"] == Counter(range(1, 13))
    assert rows["flaky_copy"] == rows["gone_copy"] == Counter(range(1, 5))
