"""Two records databases that both count their fences from one: a frozen or slower worker of one writes nothing late."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.api import environment, headrace
from tests.e2e.projects import people_pipeline, postgres_environment, with_people, write
from tests.e2e.tables import postgres
from tests.faults.test_stopped_workers import until_stopped
from tests.program import start_program

COUNT = "SELECT count(*), count(DISTINCT id) FROM people"
NUMBERS = """version: 1
pipeline: people
source: {table: numbers, cursor: {column: id}}
transform: [{sql: select * from batch}]
destination: {table: people}
run: {batch_rows: 100}
"""


def two_homes(folder: Path, document: str) -> tuple[Path, Path]:
    """One project, twice, with records of its own each."""
    write(folder, "one/headrace.toml", "")
    with_people(folder / "one")
    write(folder, "one/pipelines/people.yaml", document)
    shutil.copytree(folder / "one", folder / "two")  # With the times of the files, which a read set pins.
    return folder / "one", folder / "two"


@pytest.mark.invariant("L1", "D1")
@pytest.mark.parametrize(
    ("point", "has_cursor", "ends"),
    [
        # It had planned to read everything, and without a cursor nothing tells that there is nothing left.
        ("plan.after_store:1", False, (1, "run.overtaken")),
        ("batch.mid_rows:4", False, (3, None)),
        ("dest.after_fence:1", True, (0, None)),
    ],
)
def test_worker_of_another_home_that_wakes_late_leaves_each_row_once(
    point: str, has_cursor: bool, ends: tuple[int, str | None], tmp_path: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "CREATE TABLE numbers AS SELECT g::bigint AS id FROM generate_series(1, 989) g")
    postgres(postgres_database, "ALTER TABLE numbers ADD PRIMARY KEY (id)")
    document = NUMBERS if has_cursor else people_pipeline()
    frozen, other = two_homes(tmp_path, document)
    settings = postgres_environment(postgres_database)
    paused = start_program(
        "run", "pipelines/people.yaml", "--json", folder=frozen,
        environment=environment(HEADRACE_FAILPOINT=f"{point}:stop", **settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until_stopped(paused)
        done = headrace(other, "run", "pipelines/people.yaml", **settings)
        assert done.returncode == 0, done.stderr
        assert postgres(postgres_database, COUNT) == [(989, 989)]

        os.kill(paused.pid, signal.SIGCONT)
        out, err = paused.communicate(timeout=60)
    finally:
        if paused.poll() is None:
            paused.kill()

    assert (paused.returncode, (json.loads(out)["error"] or {}).get("code")) == ends, err
    assert postgres(postgres_database, COUNT) == [(989, 989)]
    if ends[0] == 3:  # Superseded in the middle of a batch: its run goes on where the other one has brought the lane.
        again = headrace(frozen, "run", "pipelines/people.yaml", **settings)
        assert again.returncode == 0, again.stderr
        assert postgres(postgres_database, COUNT) == [(989, 989)]


@pytest.mark.invariant("L1")
def test_reset_of_one_home_goes_above_the_fence_of_another(tmp_path: Path, postgres_database: str) -> None:
    one, two = two_homes(tmp_path, people_pipeline())
    settings = postgres_environment(postgres_database)
    for folder in (one, two):
        assert headrace(folder, "run", "pipelines/people.yaml", **settings).returncode == 0
    before = postgres(postgres_database, "SELECT max(fence) FROM _headrace_checkpoint")

    done = headrace(one, "pipelines", "reset", "people", "--yes", **settings)

    assert done.returncode == 0, done.stderr
    assert postgres(postgres_database, "SELECT max(fence) FROM _headrace_checkpoint") > before


@pytest.mark.invariant("D1")
def test_run_whose_position_another_home_resets_does_not_read_its_rows_again(
    tmp_path: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "CREATE TABLE numbers AS SELECT g::bigint AS id FROM generate_series(1, 989) g")
    postgres(postgres_database, "ALTER TABLE numbers ADD PRIMARY KEY (id)")
    frozen, other = two_homes(tmp_path, NUMBERS)
    settings = postgres_environment(postgres_database)
    assert headrace(other, "apply", "--yes", **settings).returncode == 0
    paused = start_program(
        "run", "pipelines/people.yaml", "--json", folder=frozen,
        environment=environment(HEADRACE_FAILPOINT="batch.after_commit:3:stop", **settings),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until_stopped(paused)
        done = headrace(other, "pipelines", "reset", "people", "--yes", **settings)
        assert done.returncode == 0, done.stderr
        os.kill(paused.pid, signal.SIGCONT)
        _, err = paused.communicate(timeout=60)
    finally:
        if paused.poll() is None:
            paused.kill()

    assert (paused.returncode, "Traceback" in err) == (3, False)  # Superseded in the middle of a batch.
    again = headrace(frozen, "run", "pipelines/people.yaml", "--json", **settings)
    assert json.loads(again.stdout)["error"]["code"] == "run.overtaken", again.stderr
    assert postgres(postgres_database, COUNT) == [(300, 300)]
