"""kill -9 at every step of a run, then the same command again: the table of an uninterrupted run (D1)."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import pytest
import urllib3

from tests.databases import new_database
from tests.e2e.api import headrace, serving, start
from tests.e2e.projects import ROWS, UNIQUE, new_project, people_pipeline, postgres_environment, with_people, write
from tests.e2e.tables import duckdb_differences, duckdb_rows, postgres, postgres_differences

POINTS = (
    "claim.after_update:1",
    "dest.after_fence:1",
    "plan.after_store:1",
    "extract.mid_page:4",
    "batch.before_begin:3",
    "batch.after_checkpoint:3",
    "batch.mid_rows:3",
    "batch.before_commit:3",
    "batch.commit_sent:3",
    "batch.after_commit:3",
    "publish.before_swap:1",
    "publish.after_swap:1",
    "publish.before_commit:1",
    "publish.after_commit:1",
    "finish.before_state:1",
)
CHECKPOINT = (
    "SELECT position, state, read, used, filtered, quarantined, failed FROM _headrace_checkpoint WHERE stream = '0'"
)


def killed_and_resumed(folder: Path, point: str, **extra: str) -> dict[str, object]:
    killed = headrace(folder, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT=f"{point}:kill", **extra)
    assert killed.returncode == -9, killed.stderr
    resumed = headrace(folder, "run", "pipelines/people.yaml", "--json", **extra)
    assert resumed.returncode == 0, resumed.stderr
    found: dict[str, object] = json.loads(resumed.stdout)
    return found


def rules_of(publish: str) -> str:
    return UNIQUE if publish == "run" else ""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A project that was run to its end in the home `whole`, once for each way to publish."""

    @cache
    def made(publish: str) -> Path:
        folder = new_project(tmp_path_factory.mktemp("whole"))
        with_people(folder)
        write(folder, "pipelines/people.yaml", people_pipeline(extra_rules=rules_of(publish)))
        assert headrace(folder, "run", "pipelines/people.yaml", HEADRACE_HOME="whole").returncode == 0
        return folder

    return made


@pytest.fixture(scope="module")
def uninterrupted_on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_server_url: str
) -> Iterator[Callable[[str], str]]:
    """A database in which only the table `expected` and the checkpoint `passed` tell of such a run."""
    with ExitStack() as databases:

        @cache
        def made(publish: str) -> str:
            url = databases.enter_context(new_database(postgres_server_url))
            folder = new_project(tmp_path_factory.mktemp("whole"))
            with_people(folder)
            write(folder, "pipelines/people.yaml", people_pipeline(extra_rules=rules_of(publish)))
            assert headrace(folder, "run", "pipelines/people.yaml", **postgres_environment(url)).returncode == 0
            postgres(url, "ALTER TABLE people RENAME TO expected")
            postgres(url, "ALTER TABLE _headrace_checkpoint RENAME TO passed")
            postgres(url, "DROP TABLE _headrace_quarantine, _headrace_owner")
            return url

        yield made


@pytest.fixture(params=["batch", "run"])
def publish(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("point", POINTS)
def test_killed_run_on_duckdb_ends_in_the_exact_table(
    point: str, publish: str, project: Path, uninterrupted: Callable[[str], Path]
) -> None:
    if publish == "batch" and point.startswith("publish.") and "commit" not in point:
        point = "publish.before_commit:1"
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline(extra_rules=rules_of(publish)))

    killed_and_resumed(project, point, HEADRACE_HOME="killed")

    expected, found = uninterrupted(publish) / "whole/data.duckdb", project / "killed/data.duckdb"
    assert duckdb_differences(expected, found, "people") == []
    assert duckdb_rows(found, CHECKPOINT) == duckdb_rows(expected, CHECKPOINT)
    assert duckdb_rows(found, "SELECT count(*) FROM _headrace_quarantine") == [(ROWS // 100,)]
    assert duckdb_rows(found, "SELECT count(*) FROM people") == [(ROWS - ROWS // 100 - 1,)]
    assert duckdb_rows(found, "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '_headrace_stage%'") == [(0,)]


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("point", POINTS[1::2])
def test_killed_run_on_postgres_ends_in_the_exact_table(
    point: str,
    publish: str,
    project: Path,
    uninterrupted_on_postgres: Callable[[str], str],
    postgres_copy: Callable[[str], str],
) -> None:
    database = postgres_copy(uninterrupted_on_postgres(publish))
    settings = postgres_environment(database)
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline(extra_rules=rules_of(publish)))

    killed_and_resumed(project, point, HEADRACE_HOME="killed", **settings)

    assert postgres_differences(database, "expected", "people") == []
    passed = CHECKPOINT.replace("_headrace_checkpoint", "passed")
    assert postgres(database, CHECKPOINT) == postgres(database, passed)
    assert postgres(database, "SELECT count(*) FROM _headrace_quarantine") == [(ROWS // 100,)]


@pytest.mark.invariant("D1", "A1")
@pytest.mark.parametrize(
    "point",
    ["api.after_commit_before_response:1", "enqueue.after_commit_before_publish:1", "queue.after_publish:1",
     "claim.after_update:1", "claim.before_ack:1", "batch.before_commit:4", "publish.after_commit:1"],
)  # fmt: skip
def test_killed_up_goes_on_when_it_is_started_again(
    point: str, project: Path, uninterrupted: Callable[[str], Path]
) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    server = start(project, HEADRACE_FAILPOINT=f"{point}:kill")
    for name in ("connections/landing", "pipelines/people"):
        answer = server.call("PUT", f"/v1/{name}", (project / f"{name}.yaml").read_text(), kind="application/yaml")
        assert answer.status == 201, answer.body
    with suppress(urllib3.exceptions.HTTPError):  # It may die before it answers.
        server.call("POST", "/v1/pipelines/people/trigger")
    assert server.process.wait(timeout=30) == -9

    with serving(project) as again:
        runs = again.call("GET", "/v1/runs").body["items"]
        assert len(runs) == 1
        assert again.wait_for(runs[0]["id"])["state"] == "succeeded"
        assert again.stop() == 0

    expected = uninterrupted("batch") / "whole/data.duckdb"
    assert duckdb_differences(expected, project / ".headrace/data.duckdb", "people") == []


def test_run_that_died_while_sealing_is_explained_and_retried(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline(extra_rules="  - {rule: between, column: id, max: 500}\n"))
    killed = headrace(project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT="seal.after_fence:1:kill")
    assert killed.returncode == -9

    failed = headrace(project, "run", "pipelines/people.yaml")
    assert failed.returncode == 1
    assert "quality.rejected" in failed.stderr
    write(project, "pipelines/people.yaml", people_pipeline())
    done = headrace(project, "run", "pipelines/people.yaml", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["adopted"]
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM people") == [
        (989, 989)
    ]


def test_second_kill_and_third_attempt_are_exact_too(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    for point in ("batch.after_commit:2", "batch.mid_rows:2", "batch.commit_sent:3"):
        assert headrace(project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT=f"{point}:kill").returncode == -9

    done = headrace(project, "run", "pipelines/people.yaml", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["attempt"] == 4
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM people") == [
        (989, 989)
    ]
