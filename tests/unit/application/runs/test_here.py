"""Runs of the process that asks for them: what was left is completed, what is given up is ended first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from application.runs.here import RanHere
from application.runs.launch import TriggerRun
from domain.errors import ConflictError
from domain.runs.run import Run, RunRequest, RunState
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from infrastructure.settings.sources import load_settings
from tests.e2e.inside import ME, Inside

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"


class Here(Inside):
    async def asked(self, **wishes: bool) -> RanHere:
        return await self.use_cases.here.run(ME, TriggerRun("orders", RunRequest(**wishes)))  # type: ignore[arg-type]

    async def run(self, run_id: str) -> Run:
        return await self.use_cases.history.run(ME, run_id)


@asynccontextmanager
async def here(project: Path) -> AsyncIterator[Here]:
    settings = load_settings(root=project, environment={"HEADRACE_STORE__KIND": "memory"}).settings
    (project / "data/orders.csv").write_text("id\n1\n2\n")
    async with running(build_container(settings, project), with_store=False) as use_cases:
        found = Here(use_cases)
        await found.put(LANDING)
        await found.pipeline("orders", "connection: landing, path: orders.csv, key: [id]", "table: orders")
        await found.pipeline("after", "table: orders, key: [id]", "table: copied", "schedule: {after: [orders]}\n")
        yield found


async def test_run_here_is_brought_to_its_end_and_names_what_follows(project: Path) -> None:
    async with here(project) as found:
        ran = await found.asked()

        assert (ran.run.state, ran.resumed, list(ran.followers)) == (RunState.SUCCEEDED, False, ["after"])
        queued = (await found.use_cases.history.runs(ME, pipeline="after")).items
        assert [(run.state, run.cause) for run in queued] == [(RunState.QUEUED, ran.run.id)]


async def test_run_that_waits_is_completed_instead_of_another(project: Path) -> None:
    async with here(project) as found:
        left = await found.use_cases.launcher.launch(ME, TriggerRun("orders"))

        ran = await found.asked()

        assert (ran.run.id, ran.resumed, ran.run.state) == (left.id, True, RunState.SUCCEEDED)
        assert [row["id"] for row in await found.rows("orders")] == [1, 2]


@pytest.mark.parametrize("wish", ["abandon", "full_refresh"])
async def test_run_that_waits_is_ended_before_one_that_gives_it_up(wish: str, project: Path) -> None:
    async with here(project) as found:
        left = await found.use_cases.launcher.launch(ME, TriggerRun("orders"))

        ran = await found.asked(**{wish: True})

        assert (ran.run.id != left.id, ran.resumed, ran.run.state) == (True, False, RunState.SUCCEEDED)
        assert (await found.run(left.id)).state is RunState.CANCELLED


async def test_lane_in_which_another_process_works_is_told(project: Path) -> None:
    async with here(project) as found:
        busy = await found.use_cases.launcher.launch_claimed(ME, TriggerRun("orders"))

        with pytest.raises(ConflictError, match=busy.id) as caught:
            await found.asked()

        assert caught.value.code == "run.lane_busy"


async def test_failed_run_is_tried_again_with_its_wishes(project: Path) -> None:
    async with here(project) as found:
        (project / "data/orders.csv").rename(project / "data/away.csv")
        failed = (await found.asked()).run
        (project / "data/away.csv").rename(project / "data/orders.csv")

        ran = await found.use_cases.here.retry(ME, failed.id)

        assert (failed.state, ran.run.state, ran.run.id != failed.id) == (RunState.FAILED, RunState.SUCCEEDED, True)
        assert list(ran.followers) == ["after"]
        with pytest.raises(ConflictError, match="Only a failed"):
            await found.use_cases.here.retry(ME, ran.run.id)
