"""A run is given to one claim at a time, however many ask."""

import asyncio
from pathlib import Path

import pytest

from application.runs.launch import TriggerRun
from domain.identity.scope import PLATFORM
from tests.e2e.inside import ME, inside


@pytest.mark.invariant("L1")
async def test_run_that_several_ask_for_at_once_is_given_once(project: Path) -> None:
    async with inside(project, HEADRACE_STORE__KIND="memory") as installation:
        await installation.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
        await installation.pipeline("orders", "connection: landing, path: a.csv", "table: orders")
        use_cases = installation.use_cases
        first = await use_cases.launcher.launch(ME, TriggerRun("orders"))
        second = await use_cases.launcher.launch(ME, TriggerRun("orders"))

        given = await asyncio.gather(
            *(use_cases.claimer.claim(PLATFORM, run) for run in (first.id, first.id, second.id, first.id, "none such"))
        )

    claimed = [run for run in given if run is not None]
    assert [(run.id, run.attempt) for run in claimed] == [(first.id, 1)]  # A lane has one run at a time.
