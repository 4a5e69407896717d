"""The story of a load: begun, stopped, gone on with by another claim, published once, sealed."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from application.runs.launch import TriggerRun
from application.runs.work import Claim, IWork, StoppedError
from domain.errors import FencedError, WorkFailedError
from domain.identity.scope import PLATFORM
from domain.runs.run import Run
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from infrastructure.clock import SystemClock
from infrastructure.metadata.lease_holders import this_process
from infrastructure.settings.sources import load_settings
from infrastructure.stores.memory.store import InMemoryDataStore
from tests.e2e.inside import ME, Inside
from tests.unit.application.loads.making import Held

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"


class Story(Inside):
    """One installation in memory, and claims of one run after another."""

    works: Any
    file: Path

    async def asked(self) -> Run:
        return await self.use_cases.launcher.launch_claimed(ME, TriggerRun("orders"))

    async def again(self, run: Run) -> Run:
        """The same run as another worker claims it that takes it over."""
        async with self.use_cases.launcher.records.unit(PLATFORM) as unit:
            assert await unit.runs.release(run.id, run.fence, reason="drained")
            found = await unit.runs.claim(run.id, owner=this_process(), lease=timedelta(hours=1))
            await unit.commit()
        assert found is not None
        return found

    async def claimed(self, run: Run) -> tuple[IWork, Claim, Held]:
        work, held = await self.works.of(run), Held()
        return work, Claim(run, work, held, run.fence, timedelta(hours=1), lambda: False, SystemClock()), held

    async def ids(self) -> list[int]:
        return [row["id"] for row in await self.rows("orders")]


@asynccontextmanager
async def story(project: Path, *, more: str = "", mode: str = "append") -> AsyncIterator[Story]:
    settings = load_settings(root=project, environment={"HEADRACE_STORE__KIND": "memory"}).settings
    container = build_container(settings, project)
    async with running(container, with_store=False) as use_cases:
        told = Story(use_cases)
        told.works, told.file = container.use_cases.works(), project / "data/orders.csv"
        told.file.write_text("id\n1\n2\n3\n4\n5\n")
        await told.put(LANDING)
        await told.pipeline(
            "orders", "connection: landing, path: orders.csv", f"table: orders, mode: {mode}",
            f"run: {{batch_rows: 2}}\n{more}",
        )  # fmt: skip
        yield told


@pytest.mark.invariant("D1")
async def test_load_is_committed_batch_by_batch_and_published(project: Path) -> None:
    async with story(project) as told:
        work, claim, _ = await told.claimed(await told.asked())
        batches: list[int] = []

        report = await work.perform(claim, lambda progress: batches.append(progress.rows_used))

        assert batches == [2, 2, 1]
        assert (report.counts.used, report.published, report.batches) == (5, "batch", 3)
        assert await told.ids() == [1, 2, 3, 4, 5]
        assert (await told.use_cases.states.state(ME, "orders")).state == "idle"


@pytest.mark.invariant("D1", "L1")
async def test_load_that_is_stopped_stops_at_a_border_and_the_next_claim_goes_on_there(project: Path) -> None:
    async with story(project) as told:
        run = await told.asked()
        work, claim, held = await told.claimed(run)

        with pytest.raises(StoppedError):
            await work.perform(claim, lambda _: setattr(held, "reason", "cancelled"))

        assert await told.ids() == [1, 2]
        later, claimed, _ = await told.claimed(await told.again(run))
        report = await later.perform(claimed, lambda _: None)
        assert (report.counts.used, report.batches) == (5, 2)
        assert await told.ids() == [1, 2, 3, 4, 5]
        with pytest.raises(FencedError):  # The one before it can do nothing any more.
            held.reason = None
            await work.perform(claim, lambda _: None)
        assert await told.ids() == [1, 2, 3, 4, 5]


@pytest.mark.invariant("D1")
async def test_load_whose_worker_died_before_saying_so_is_not_read_again(project: Path) -> None:
    async with story(project) as told:
        run = await told.asked()
        work, claim, _ = await told.claimed(run)
        first = await work.perform(claim, lambda _: None)

        later, claimed, _ = await told.claimed(await told.again(run))
        report = await later.perform(claimed, lambda _: pytest.fail("read again"))

        assert (report.read_set, report.counts) == (first.read_set, first.counts)
        assert await told.ids() == [1, 2, 3, 4, 5]
        sealed = await later.seal(claimed)
        assert sealed is not None
        assert (sealed.is_done, sealed.report and sealed.report.counts) == (True, first.counts)


@pytest.mark.parametrize("damage", ['{"id": 1}', "[1]", '{"plan": "x", "id": "y"}'])
async def test_plan_that_somebody_changed_in_the_records_ends_its_run_alone(project: Path, damage: str) -> None:
    async with story(project) as told:
        run = await told.asked()
        work, claim, held = await told.claimed(run)
        with pytest.raises(StoppedError):
            await work.perform(claim, lambda _: setattr(held, "reason", "cancelled"))
        with sqlite3.connect(next(project.rglob("*records*.db"))) as records:
            records.execute("UPDATE runs SET read_set = ?", (damage,))

        later, claimed, _ = await told.claimed(await told.again(run))

        with pytest.raises(WorkFailedError, match="somebody has changed it") as refused:
            await later.perform(claimed, lambda _: None)
        assert refused.value.code == "run.plan_damaged"
        sealed = await later.seal(claimed)
        assert sealed is not None
        assert (sealed.is_done, sealed.report and sealed.report.counts.used) == (False, 2)
        assert await told.ids() == [1, 2]


@pytest.mark.invariant("C1")
async def test_sealed_load_tells_what_it_committed_and_takes_no_batch_more(project: Path) -> None:
    async with story(project) as told:
        run = await told.asked()
        work, claim, held = await told.claimed(run)
        assert await work.seal(claim) is None  # Nothing has begun, so there is nothing to stop.
        with pytest.raises(StoppedError):
            await work.perform(claim, lambda _: setattr(held, "reason", "cancelled"))

        sealed = await work.seal(claim)

        assert sealed is not None
        assert (sealed.is_done, sealed.report and sealed.report.counts.used) == (False, 2)
        assert await told.ids() == [1, 2]


@pytest.mark.invariant("D9")
async def test_load_that_a_rule_over_the_whole_refuses_publishes_nothing(project: Path) -> None:
    rule = "quality: [{rule: row_count, min: 6}]\n"
    async with story(project, more=rule) as told:
        run = await told.ran("orders")

        assert (run.error and run.error.code) == "quality.rejected"
        assert [str(table) for table in await (await told.store()).tables()] == []


@pytest.mark.invariant("D1")
async def test_rows_that_replace_a_table_take_its_place_at_once(project: Path) -> None:
    async with story(project, mode="replace") as told:
        await told.report("orders")
        told.file.write_text("id\n7\n8\n9\n")
        work, claim, held = await told.claimed(await told.asked())

        with pytest.raises(StoppedError):
            await work.perform(claim, lambda _: setattr(held, "reason", "cancelled"))
        assert await told.ids() == [1, 2, 3, 4, 5]
        held.reason = None
        await work.perform(claim, lambda _: None)

        assert await told.ids() == [7, 8, 9]


async def test_store_that_can_only_be_read_from_is_refused_as_a_destination_by_name(project: Path) -> None:
    async with story(project) as told:
        await told.pipeline("back", "connection: landing, path: orders.csv", "connection: landing, table: copied")

        run = await told.ran("back")

        assert (run.error and run.error.code) == "connection.read_only"
        assert "way: not known by now: A files connection can only be read from. [connection.read_only]" in (
            await told.notes("back")
        )
        assert [file.name for file in told.file.parent.iterdir()] == ["orders.csv"]


async def test_rows_that_go_by_their_key_are_refused_where_a_store_promises_no_merging(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promised = replace(InMemoryDataStore.capabilities, merges=False)
    monkeypatch.setattr(InMemoryDataStore, "capabilities", promised)
    async with story(project) as told:
        await told.pipeline(
            "merged", "connection: landing, path: orders.csv, key: [id]", "table: merged, mode: merge, key: [id]"
        )

        run = await told.ran("merged")

        assert (run.error and run.error.code) == "destination.merge_unsupported"
        assert any("default cannot merge: choose mode append or replace" in note for note in await told.notes("merged"))


@pytest.mark.invariant("C1")
async def test_cancelled_run_ends_although_its_source_cannot_be_opened(project: Path) -> None:
    async with story(project) as told:
        run = await told.asked()
        await told.use_cases.controller.cancel(ME, run.id)
        told.file.unlink()
        told.file.parent.rmdir()
        work, claim, _ = await told.claimed(replace(run, cancel_requested=True))

        with pytest.raises(StoppedError, match="cancelled"):
            await work.perform(claim, lambda _: None)
