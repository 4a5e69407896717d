"""How a claimed run ends, whatever it is a run of: the work is a script, the records are real."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dependency_injector import providers

from application.runs.launch import TriggerRun
from application.runs.work import Claim, IWork, IWorks, Sealed, StoppedError
from domain.errors import FencedError, PlatformError, StoreUnavailableError, WorkFailedError
from domain.first_errors import FirstError
from domain.pipelines.spec import RetryOptions
from domain.ports.engine import OnProgress
from domain.ports.telemetry import ITelemetry
from domain.quality.measures import Counts
from domain.runs.report import RunReport
from domain.runs.run import Run, RunState
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from infrastructure.settings.sources import load_settings
from tests.e2e.inside import ME, Inside
from tests.fakes.telemetry import KeptTelemetry

REPORT = RunReport.of_counts(Counts(read=3, used=2, filtered=1))


class Script(IWork):
    """Work that ends as it is told, and remembers that it was sealed."""

    def __init__(self) -> None:
        self.end: Exception | None = None
        self.left: Sealed | Exception | None = Sealed(is_done=False, report=None)
        self.first: RunReport | None = None
        self.attempts, self.timeout, self.was_sealed = 0, timedelta(hours=1), False

    @property
    def retry(self) -> RetryOptions:
        return RetryOptions(self.attempts, timedelta())

    def timeout_or(self, default: timedelta) -> timedelta:
        return self.timeout

    async def perform(self, claim: Claim, on_progress: OnProgress) -> RunReport:
        if self.end is not None:
            raise self.end
        return REPORT

    async def seal(self, claim: Claim) -> Sealed | None:
        self.was_sealed = True
        if isinstance(self.left, Exception):
            raise self.left
        return self.left

    def completed(self) -> RunReport | None:
        return self.first


class Scripts(IWorks):
    def __init__(self) -> None:
        self.by_pipeline: dict[str, Script] = {}

    async def of(self, run: Run) -> Script:
        return self.by_pipeline[run.work.name]


Perform = Callable[[Script], Awaitable[Run]]


@asynccontextmanager
async def performing(project: Path, telemetry: ITelemetry | None = None) -> AsyncIterator[Perform]:
    """Performs scripts, each as a run of its own pipeline that was asked for and claimed."""
    settings = load_settings(root=project, environment={"HEADRACE_STORE__KIND": "memory"}).settings
    container = build_container(settings, project)
    scripts = Scripts()
    container.use_cases.works.override(providers.Object(scripts))
    if telemetry is not None:
        container.runtime.telemetry.override(providers.Object(telemetry))
    async with running(container, with_store=False) as use_cases:
        installation = Inside(use_cases)
        await installation.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")

        async def perform(script: Script) -> Run:
            name = f"p{len(scripts.by_pipeline)}"
            scripts.by_pipeline[name] = script
            await installation.pipeline(name, "connection: landing, path: a.csv", f"table: {name}")
            claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun(name))
            await use_cases.executor.perform(claimed)
            return await use_cases.history.run(ME, claimed.id)

        yield perform


def ends(error: Exception, **more: Any) -> Script:
    """A script that ends with an error, changed in more ways."""
    script = Script()
    script.end = error
    for name, value in more.items():
        setattr(script, name, value)
    return script


@pytest.mark.invariant("R1")
async def test_work_that_was_done_is_a_run_that_succeeded(project: Path) -> None:
    async with performing(project) as perform:
        run = await perform(Script())

    assert (run.state, run.reason, run.report, run.error) == (RunState.SUCCEEDED, "published", REPORT, None)


ENDS: dict[str, tuple[Script, RunState, str | None]] = {
    "failed": (ends(WorkFailedError("No.", code="quality.rejected")), RunState.FAILED, "quality.rejected"),
    "a bug": (ends(RuntimeError("a bug")), RunState.FAILED, PlatformError.code),
    "cancelled": (ends(StoppedError("cancelled")), RunState.CANCELLED, "cancelled"),
    "took too long": (ends(StoppedError("timeout")), RunState.FAILED, "run.timeout"),
    "failed for good": (ends(StoreUnavailableError("Away."), attempts=0), RunState.FAILED, "store.unavailable"),
    "failed for now": (ends(StoreUnavailableError("Away."), attempts=1), RunState.QUEUED, "retry: store.unavailable"),
    "drained": (ends(StoppedError("drained")), RunState.QUEUED, "drained"),
    "somebody else's by the lease": (ends(StoppedError("lease_lost")), RunState.RUNNING, None),
    "somebody else's by the fence": (ends(FencedError("Another's.")), RunState.RUNNING, None),
}


@pytest.mark.invariant("R1")
async def test_end_of_a_run_is_what_became_of_its_work(project: Path) -> None:
    found = {}
    async with performing(project) as perform:
        for name, (script, _, _) in ENDS.items():
            run = await perform(script)
            # Nobody else's writers are stopped, and none that is to go on.
            assert script.was_sealed is run.state.is_terminal, name
            assert "bug" not in str(run.error)
            found[name] = (run.state, run.reason)

    assert found == {name: (state, reason) for name, (_, state, reason) in ENDS.items()}


@pytest.mark.invariant("C1")
async def test_run_whose_writers_cannot_be_stopped_stays_running_and_says_why(project: Path) -> None:
    async with performing(project) as perform:
        run = await perform(ends(StoppedError("cancelled"), left=StoreUnavailableError("Away.")))

    assert (run.state, run.reason) == (RunState.RUNNING, "sealing")


@pytest.mark.invariant("D1")
async def test_run_that_had_been_published_before_it_was_stopped_has_succeeded(project: Path) -> None:
    async with performing(project) as perform:
        run = await perform(ends(StoppedError("cancelled"), left=Sealed(is_done=True, report=REPORT)))

    assert (run.state, run.report) == (RunState.SUCCEEDED, REPORT)


async def test_failed_run_tells_what_it_had_completed_and_the_first_errors(project: Path) -> None:
    error = WorkFailedError("No.", code="run.conversion")
    error.first_errors = [FirstError(ordinal=3)]
    async with performing(project) as perform:
        run = await perform(ends(error))

    assert run.report is not None
    assert run.report.first_errors == (FirstError(ordinal=3),)


async def test_run_that_ends_before_it_begins_anything_of_its_own_tells_what_it_completed_for_another(
    project: Path,
) -> None:
    async with performing(project) as perform:
        run = await perform(ends(StoppedError("cancelled"), left=None, first=REPORT))

    assert (run.state, run.report) == (RunState.CANCELLED, REPORT)


async def test_span_of_a_run_has_the_status_of_its_end(project: Path) -> None:
    telemetry = KeptTelemetry()
    scripts = {
        "done": (Script(), None),
        "failed": (ends(WorkFailedError("No.", code="quality.rejected")), "quality.rejected"),
        "failed for now": (ends(StoreUnavailableError("Away."), attempts=1), "store.unavailable"),
        "a bug": (ends(RuntimeError("a bug")), PlatformError.code),
        "took too long": (ends(StoppedError("timeout")), "run.timeout"),
        "drained": (ends(StoppedError("drained")), None),
    }
    async with performing(project, telemetry) as perform:
        for script, _ in scripts.values():
            await perform(script)

    assert [(span.name, span.status and span.status[0]) for span in telemetry.spans] == [
        ("run", code) for _, code in scripts.values()
    ]


async def test_run_that_another_has_now_is_a_lost_lease(project: Path) -> None:
    telemetry = KeptTelemetry()
    async with performing(project, telemetry) as perform:
        for end in (StoppedError("lease_lost"), FencedError("Older.", fence=None), StoppedError("drained")):
            await perform(ends(end))

    lost = [number[1:] for number in telemetry.numbers if number[0] == "pipeline.lease.losses"]
    assert [amount for amount, _ in lost] == [1, 1]
    assert {tuple(sorted(labels)) for _, labels in lost} == {("organization", "pipeline")}
