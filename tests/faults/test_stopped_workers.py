"""A worker that is paused inside its transaction past its lease, and an answer to COMMIT that never came."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.api import environment, headrace
from tests.e2e.projects import ROWS, people_pipeline, postgres_environment, with_people, write
from tests.e2e.tables import duckdb_rows, postgres

LEASE = {"HEADRACE_RUN__LEASE_SECONDS": "1"}
COUNT = "SELECT count(*), count(DISTINCT id) FROM people"


def stopped(process: subprocess.Popen[str]) -> bool:
    status = Path(f"/proc/{process.pid}/stat").read_text()
    return status[status.rindex(")") + 2] == "T"


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
    command = [sys.executable, "-m", "entrypoints.cli.main", "run", "pipelines/people.yaml"]
    paused = subprocess.Popen(
        command, cwd=project, env=environment(HEADRACE_FAILPOINT=f"{point}:stop", **settings), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not stopped(paused):
            assert paused.poll() is None
            assert time.monotonic() < deadline
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
def test_connection_that_is_terminated_in_the_middle_is_opened_again(project: Path, postgres_database: str) -> None:
    with_people(project, rows=20_000)
    write(project, "pipelines/people.yaml", people_pipeline().replace("batch_rows: 100", "batch_rows: 200"))
    settings = postgres_environment(postgres_database)
    command = [sys.executable, "-m", "entrypoints.cli.main", "run", "pipelines/people.yaml"]
    running = subprocess.Popen(
        command, cwd=project, env=environment(**settings), text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    ended = 0
    while running.poll() is None and ended < 3:
        rows = postgres(
            postgres_database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'headrace:%' "
            "AND datname = current_database() AND query LIKE 'COPY%'",
        )
        ended += len(rows)
    running.communicate(timeout=60)

    done = headrace(project, "run", "pipelines/people.yaml", **settings) if running.returncode else running

    assert done.returncode == 0
    assert ended
    counted = postgres(postgres_database, COUNT)
    assert counted in ([(19_799, 19_799)],)
