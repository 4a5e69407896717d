"""On SQLite a claim, and a page of runs, finds what it needs by indexes, whatever else the records hold."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from domain.identity.scope import PLATFORM
from domain.runs.run import Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef
from infrastructure.metadata.lease_holders import this_process
from infrastructure.metadata.records import SqlRecords, sqlite_url

LEASE = timedelta(seconds=30)


async def test_claims_of_one_run_and_of_several_read_no_table_through(tmp_path: Path) -> None:
    records = SqlRecords(sqlite_url(tmp_path / "records.db"))
    await records.open()
    said: list[tuple[str, tuple[Any, ...]]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        if isinstance(values, tuple) and statement.startswith(("SELECT", "UPDATE")):
            said.append((statement, values))

    async with records.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        for name in "abc":
            await unit.pipelines.put("one", name, {"pipeline": name}, "me")
            work = WorkRef(WorkKind.PIPELINE, name, 1)
            await unit.runs.insert(Run(name, "one", work, "main", RunState.QUEUED, RunRequest()))
        event.listen(records._opened().sync_engine, "before_cursor_execute", note)
        for ids in (["a"], ["b", "c"]):
            assert len(await unit.runs.claim_many(ids, owner=this_process(), lease=LEASE)) == len(ids)
        event.remove(records._opened().sync_engine, "before_cursor_execute", note)
        connection = unit.runs._connection  # type: ignore[attr-defined]
        steps = [
            (statement, row[-1])
            for statement, values in said
            for row in (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
        ]
    await records.close()

    assert {statement.split()[1] for statement, _ in steps if statement.startswith("UPDATE")} == {"lanes", "runs"}
    assert not [(statement, step) for statement, step in steps if step.startswith("SCAN")]


@pytest.mark.parametrize("is_of_work", [True, False])
async def test_a_page_of_a_state_reads_no_run_of_another(tmp_path: Path, is_of_work: bool) -> None:
    records = SqlRecords(sqlite_url(tmp_path / "records.db"))
    await records.open()
    said: list[tuple[str, tuple[Any, ...]]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        said.append((statement, values))

    work = WorkKind.PIPELINE.named("a") if is_of_work else None
    async with records.unit(PLATFORM) as unit:
        event.listen(records._opened().sync_engine, "before_cursor_execute", note)
        for state in RunState:
            await unit.runs.page("one", work=work, state=state, after="r", limit=5, most_characters=9)
        event.remove(records._opened().sync_engine, "before_cursor_execute", note)
        connection = unit.runs._connection  # type: ignore[attr-defined]
        steps = [
            (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all()
            for statement, values in said
        ]
    await records.close()

    assert len(steps) == 2 * len(RunState)
    where = "org_id=? AND state=? AND id<?"
    of_work = "org_id=? AND work_kind=? AND work_name=? AND state=? AND id<?"
    assert {step[-1] for [step] in steps} == (
        {f"SEARCH runs USING INDEX runs_by_state ({where})"}
        | ({f"SEARCH runs USING INDEX ended_runs_of_some_work ({of_work})"} if is_of_work else set())
    )
