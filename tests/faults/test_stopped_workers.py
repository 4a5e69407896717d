"""A worker paused inside its transaction past its lease, connections that end, an answer to COMMIT that never came."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.api import environment, headrace
from tests.e2e.projects import ROWS, people_pipeline, postgres_environment, with_people, write
from tests.e2e.tables import duckdb_rows, postgres
from tests.program import start_program

LEASE = {"HEADRACE_RUN__LEASE_SECONDS": "1"}
COUNT = "SELECT count(*), count(DISTINCT id) FROM people"


def stopping_run(folder: Path, point: str, **settings: str) -> "subprocess.Popen[str]":
    """A run that stops itself (SIGSTOP) at a failpoint."""
    return start_program(
        "run", "pipelines/people.yaml", folder=folder,
        environment=environment(HEADRACE_FAILPOINT=f"{point}:stop", **settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until the process has stopped itself (SIGSTOP) at its failpoint."""
    deadline = time.monotonic() + 30
    state = ""
    while state != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
        status = Path(f"/proc/{process.pid}/stat").read_text()
        state = status[status.rindex(")") + 2]


@pytest.mark.invariant("L1")
@pytest.mark.parametrize(
    "point", ["batch.mid_rows:4", "batch.after_checkpoint:4", "batch.before_begin:4", "publish.before_commit:1"]
)
def test_worker_stopped_past_its_lease_writes_nothing_when_it_wakes(
    point: str, project: Path, postgres_database: str
) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    # On SQLite a process stopped inside its own record's transaction would hold the one write lock of the file.
    settings = {**LEASE, **postgres_environment(postgres_database), "HEADRACE_METADATA__KIND": "postgres"}
    paused = stopping_run(project, point, **settings)
    try:
        until_stopped(paused)
        deadline = time.monotonic() + 30
        taken = headrace(project, "run", "pipelines/people.yaml", **settings)
        while taken.returncode != 0 and "run.lane_busy" in taken.stderr:  # The lease has to run out first.
            assert time.monotonic() < deadline
            taken = headrace(project, "run", "pipelines/people.yaml", **settings)
        assert taken.returncode == 0, taken.stderr
        assert postgres(postgres_database, COUNT) == [(989, 989)]
        checkpoint = postgres(postgres_database, "SELECT * FROM _headrace_checkpoint ORDER BY stream")

        os.kill(paused.pid, signal.SIGCONT)
        said = paused.communicate(timeout=30)
    finally:
        if paused.poll() is None:
            paused.kill()

    assert "Traceback" not in said[1]
    assert postgres(postgres_database, COUNT) == [(989, 989)]
    assert postgres(postgres_database, "SELECT * FROM _headrace_checkpoint ORDER BY stream") == checkpoint
    assert postgres(postgres_database, "SELECT count(*) FROM _headrace_quarantine") == [(ROWS // 100,)]


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("store", ["duckdb", "postgres"])
@pytest.mark.parametrize("point", ["batch.commit_sent:5", "batch.before_commit:3", "batch.mid_rows:2"])
def test_lost_answer_to_commit_neither_loses_nor_doubles(
    point: str, store: str, project: Path, postgres_database: str
) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    settings = postgres_environment(postgres_database) if store == "postgres" else {}

    done = headrace(project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT=f"{point}:raise", **settings)

    assert done.returncode == 0, done.stderr
    found = (
        postgres(postgres_database, COUNT)
        if store == "postgres"
        else duckdb_rows(project / ".headrace/data.duckdb", COUNT)
    )
    assert found == [(989, 989)]


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("point", ["batch.mid_rows:3", "batch.before_commit:4", "batch.after_commit:2"])
def test_connection_that_is_terminated_in_the_middle_is_opened_again(
    point: str, project: Path, postgres_database: str
) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    running = stopping_run(project, point, **postgres_environment(postgres_database))
    try:
        until_stopped(running)
        ended = postgres(
            postgres_database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'headrace:%' "
            "AND datname = current_database()",
        )

        os.kill(running.pid, signal.SIGCONT)
        said = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            running.kill()

    assert (True,) in ended
    assert running.returncode == 0, said[1]
    assert postgres(postgres_database, COUNT) == [(989, 989)]
    assert postgres(postgres_database, "SELECT count(*) FROM _headrace_quarantine") == [(ROWS // 100,)]


@pytest.mark.invariant("D1", "R5")
@pytest.mark.parametrize("store", ["duckdb", "postgres"])
def test_run_that_was_published_before_its_last_retry_failed_has_succeeded(
    store: str, project: Path, postgres_database: str
) -> None:
    """Else whoever asks for it again would append every row a second time."""
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline() + "retry: {attempts: 1, backoff: 10ms}\n")
    settings = postgres_environment(postgres_database) if store == "postgres" else {}
    failpoints = "publish.after_commit:1:raise,dest.after_fence:3:raise"

    done = headrace(project, "run", "pipelines/people.yaml", "--json", HEADRACE_FAILPOINT=failpoints, **settings)

    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["state"], run["attempt"], run["report"]["counts"]["used"]) == ("succeeded", 2, 989)
    reasons = [
        line["event"]
        for line in json.loads(headrace(project, "runs", "logs", run["id"], "--json", **settings).stdout)["items"]
    ]
    assert reasons.count("pipeline.released") == 1
    found = (
        postgres(postgres_database, COUNT)
        if store == "postgres"
        else duckdb_rows(project / ".headrace/data.duckdb", COUNT)
    )
    assert found == [(989, 989)]
