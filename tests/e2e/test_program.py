"""A program forked from a warm process is what an executed one is: same answers, same ends, and it dies alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.api import environment, headrace, start
from tests.e2e.projects import people_pipeline, with_people, write
from tests.e2e.tables import duckdb_rows
from tests.program import fork_server_pid, start_program


def said(folder: Path, arguments: list[str], *, is_executed: bool, **extra: str) -> tuple[int, str, str]:
    process = start_program(
        *arguments,
        folder=folder, environment=environment(**extra), is_executed=is_executed,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["--version"], {}),
        (["run", "--unknown"], {}),
        (["run", "pipelines/none.yaml"], {}),
        (["plan", "pipelines/people.yaml"], {}),
        (["run", "pipelines/people.yaml"], {"HEADRACE_FAILPOINT": "batch.before_commit:2:kill"}),
        (["run", "pipelines/people.yaml"], {"HEADRACE_NONE": "1"}),
    ],
)
def test_forked_program_says_what_an_executed_one_says(
    arguments: list[str], extra: dict[str, str], project: Path
) -> None:
    with_people(project, rows=300)
    write(project, "pipelines/people.yaml", people_pipeline())

    forked = said(project, arguments, is_executed=False, HEADRACE_HOME="forked", **extra)

    assert forked == said(project, arguments, is_executed=True, HEADRACE_HOME="executed", **extra)
    assert (project / "forked").exists() == (project / "executed").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_programs_are_forked_from_one_that_has_no_thread(project: Path) -> None:
    assert headrace(project, "--version").returncode == 0
    assert len(list(Path(f"/proc/{fork_server_pid()}/task").iterdir())) == 1


def test_forked_program_dies_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_people(project, rows=300)
    write(project, "pipelines/people.yaml", people_pipeline())
    monkeypatch.setenv("HEADRACE_HOME", "of-the-tests")
    first, second = start(project, home="first"), start(project, home="second")

    assert len({os.getpid(), first.process.pid, second.process.pid}) == 3
    assert first.kill() == -9
    assert headrace(project, "run", "pipelines/people.yaml", HEADRACE_HOME="third").returncode == 0
    assert second.call("GET", "/v1/runs").body["items"] == []
    assert second.stop() == 0
    assert duckdb_rows(project / "third/data.duckdb", "SELECT count(*) FROM people") == [(296,)]
    assert not (project / "of-the-tests").exists()
