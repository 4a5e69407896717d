"""Refused rows end to end: listed, replayed exactly once whatever dies, over the CLI and HTTP (D9)."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.loads.quarantine import Refusals
from domain.stores.table import TableName
from tests.databases import new_database
from tests.e2e.api import headrace, serving
from tests.e2e.inside import inside
from tests.e2e.projects import new_project, postgres_environment, with_people, write
from tests.e2e.tables import duckdb_differences, duckdb_rows, postgres, postgres_differences
from tests.ports.backends import cursor_of

ROWS = 1000
REFUSED = ROWS // 100
POINTS = (
    *("dest.after_fence:1", "plan.after_store:1", "extract.mid_page:2", "batch.before_begin:2", "batch.mid_rows:2"),
    *("batch.before_commit:2", "batch.commit_sent:2", "batch.after_commit:2", "publish.before_commit:1"),
    "publish.after_commit:1",
)


def people(*, oldest: int, mode: str = "append", cursor: str = "", batch_rows: int = 100) -> str:
    return f"""version: 1
pipeline: people
source: {{connection: landing, path: people.csv, key: [id]{cursor}}}
transform: [{{sql: "select *, upper(name) as shouted from batch where id <> 13"}}]
quality: [{{rule: between, column: age, max: {oldest}, on_violation: quarantine}}]
destination: {{table: people, mode: {mode}}}
run: {{batch_rows: {batch_rows}}}
"""


def refused_people(folder: Path, **extra: str) -> None:
    """A run that refuses one row in a hundred, and then the rule as it should have been, for a replay of
    three batches.
    """
    with_people(folder, rows=ROWS)
    write(folder, "pipelines/people.yaml", people(oldest=130))
    done = headrace(folder, "run", "pipelines/people.yaml", **extra)
    assert done.returncode == 0, done.stderr
    write(folder, "pipelines/people.yaml", people(oldest=1000, batch_rows=4))
    assert headrace(folder, "apply", "--yes", **extra).returncode == 0


def listed(folder: Path, *arguments: str, **extra: str) -> list[dict[str, Any]]:
    done = headrace(folder, "quarantine", "list", "people", "--json", *arguments, **extra)
    assert done.returncode == 0, done.stderr
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


@pytest.mark.invariant("D9", "D6")
def test_refused_rows_are_shown_and_land_once_when_they_are_replayed(project: Path) -> None:
    refused_people(project)
    shown = listed(project)
    assert [item["record"]["id"] for item in shown] == [str(100 * n) for n in range(1, REFUSED + 1)]
    assert {(item["state"], item["kind"], item["record"]["age"]) for item in shown} == {("open", "rule", "999")}
    first = json.loads(headrace(project, "quarantine", "list", "people", "--limit", "7", "--json").stdout)
    assert listed(project, "--cursor", first["next_cursor"]) == shown[7:]
    assert headrace(project, "quarantine", "list", "people", "--cursor", "x").returncode == 2
    assert 'name, ""' not in headrace(project, "quarantine", "list", "people").stdout

    done = headrace(project, "quarantine", "replay", "people", "--json")

    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert (run["lane"], run["request"]["replay"]) == ("replay", "all")
    assert (run["report"]["counts"]["read"], run["report"]["counts"]["used"]) == (REFUSED, REFUSED)
    settled = [(item["state"], item["settled_by"]) for item in listed(project)]
    assert settled == [("repaired", run["id"])] * REFUSED
    again = headrace(project, "quarantine", "replay", "people")
    assert (again.returncode, "quarantine.empty" in again.stderr) == (1, True), again.stderr
    rows = "select count(*), count(distinct id), count(*) filter (where age = 999 and shouted like 'NAME%') from people"
    assert duckdb_rows(project / ".headrace/data.duckdb", rows) == [(ROWS - 1, ROWS - 1, REFUSED)]


@pytest.mark.invariant("D9")
def test_what_is_refused_again_stays_and_is_not_doubled(project: Path) -> None:
    refused_people(project)
    write(project, "pipelines/people.yaml", people(oldest=130))
    assert headrace(project, "apply", "--yes").returncode == 0

    done = headrace(project, "quarantine", "replay", "people", "--json")

    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["report"]["counts"]
    assert (counts["read"], counts["used"], counts["quarantined"]) == (REFUSED, 0, REFUSED)
    assert [item["state"] for item in listed(project)] == ["open"] * REFUSED
    run = listed(project)[0]["run_id"]
    assert len(listed(project, "--run", run, "--state", "open", "--limit", "3")) == 3
    assert listed(project, "--state", "repaired") == []
    wrong = headrace(project, "quarantine", "list", "people", "--state", "lost")
    assert (wrong.returncode, "quarantine.state" in wrong.stderr) == (2, True)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose refused rows are replayed in the home `whole`, and still open in the home `killed`."""
    folder = new_project(tmp_path_factory.mktemp("refused"))
    refused_people(folder, HEADRACE_HOME="killed")
    shutil.copytree(folder / "killed", folder / "whole")
    assert headrace(folder, "quarantine", "replay", "people", HEADRACE_HOME="whole").returncode == 0
    return folder


@pytest.mark.invariant("D9", "D1")
@pytest.mark.parametrize("point", POINTS)
def test_killed_replay_lands_every_row_once(point: str, project: Path, refused: Path) -> None:
    shutil.copytree(refused, project, dirs_exist_ok=True)

    replay = ("quarantine", "replay", "people")
    killed = headrace(project, *replay, HEADRACE_HOME="killed", HEADRACE_FAILPOINT=f"{point}:kill")
    assert killed.returncode == -9, killed.stderr
    again = headrace(project, *replay, HEADRACE_HOME="killed")

    # Where all was landed before the kill there may be nothing left to ask for.
    assert again.returncode == 0 or "quarantine.empty" in again.stderr, again.stderr
    expected, found = project / "whole/data.duckdb", project / "killed/data.duckdb"
    assert duckdb_differences(expected, found, "people") == []
    states = "select state, count(*) from _headrace_quarantine group by 1"
    assert duckdb_rows(found, states) == [("repaired", REFUSED)]


@pytest.fixture(scope="module")
def refused_on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_server_url: str
) -> Iterator[tuple[Path, str]]:
    """The same, still open, with its database."""
    folder = new_project(tmp_path_factory.mktemp("refused"))
    with new_database(postgres_server_url) as url:
        refused_people(folder, **postgres_environment(url))
        yield folder, url


@pytest.mark.invariant("D9", "D1")
@pytest.mark.parametrize("point", POINTS[1::2])
def test_killed_replay_on_postgres_lands_every_row_once(
    point: str, project: Path, refused_on_postgres: tuple[Path, str], postgres_copy: Callable[[str], str]
) -> None:
    folder, filled = refused_on_postgres
    shutil.copytree(folder, project, dirs_exist_ok=True)
    postgres_database = postgres_copy(filled)
    settings = postgres_environment(postgres_database)
    replay = ("quarantine", "replay", "people")

    killed = headrace(project, *replay, HEADRACE_FAILPOINT=f"{point}:kill", **settings)
    assert killed.returncode == -9, killed.stderr
    again = headrace(project, *replay, **settings)

    assert again.returncode == 0 or "quarantine.empty" in again.stderr, again.stderr
    postgres(
        postgres_database,
        "create table expected as select g as id, 'name, \"' || g || '\"' as name, case when g % 100 = 0 then 999 else "
        "g % 100 end as age from generate_series(1, 1000) g where g <> 13",
    )
    postgres(postgres_database, "create table found as select id::int, name, age::int from people")
    assert postgres_differences(postgres_database, "expected", "found") == []
    states = postgres(postgres_database, "select state, count(*) from _headrace_quarantine group by 1")
    assert states == [("repaired", REFUSED)]


@pytest.mark.invariant("D9")
def test_quarantine_over_http(project: Path) -> None:
    with_people(project, rows=ROWS)
    with serving(project) as server:
        for name, text in (("connections/landing", None), ("pipelines/people", people(oldest=130))):
            body = text or (project / f"{name}.yaml").read_text()
            assert server.call("PUT", f"/v1/{name}", body, kind="application/yaml").status == 201
        run = server.call("POST", "/v1/pipelines/people/trigger").body
        assert server.wait_for(run["id"])["state"] == "succeeded"
        assert server.call("PUT", "/v1/pipelines/people", people(oldest=1000), kind="application/yaml").status == 200

        pages: list[list[str]] = []
        cursor = ""
        while cursor is not None:
            page = server.call("GET", f"/v1/quarantine?pipeline=people&limit=4{cursor}").body
            pages.append([item["record"]["id"] for item in page["items"]])
            cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None
        asked = server.call("POST", "/v1/quarantine/replay", {"pipeline": "people", "run": run["id"]})

        assert [len(ids) for ids in pages] == [4, 4, 2]
        assert sorted(int(number) for ids in pages for number in ids) == [100 * n for n in range(1, 11)]
        assert asked.status == 202
        assert asked.headers["location"] == f"/v1/runs/{asked.body['id']}"
        assert server.wait_for(asked.body["id"])["report"]["counts"]["used"] == REFUSED
        over = headrace(project, "quarantine", "list", "people", "--state", "repaired", "--json")
        assert len(json.loads(over.stdout)["items"]) == REFUSED
        empty = server.call("POST", "/v1/quarantine/replay", {"pipeline": "people"})
        assert (empty.status, empty.body["code"]) == (409, "quarantine.empty")
        for path in ("/v1/quarantine?pipeline=unknown", "/v1/quarantine?pipeline=people&cursor=x", "/v1/quarantine"):
            expected = {"unknown": 404, "cursor": 400}.get(path.rpartition("=")[2], 400 if "cursor" in path else 422)
            assert server.call("GET", path).status == expected, path
        for body in ({}, {"pipeline": "people", "run": "x"}, {"pipeline": "people", "all": True}):
            assert server.call("POST", "/v1/quarantine/replay", body).status == 422
        replacing = people(oldest=1000, mode="replace")
        assert server.call("PUT", "/v1/pipelines/people", replacing, kind="application/yaml").status == 200
        refused = server.call("POST", "/v1/quarantine/replay", {"pipeline": "people"})
        assert (refused.status, refused.body["code"]) == (422, "quarantine.replace")


@pytest.mark.invariant("D9")
async def test_a_row_that_a_lookback_reads_again_is_open_once_and_not_after_it_landed(project: Path) -> None:
    """Also a row that was put right in the source, and so is read with a later cursor."""
    async with inside(project) as own:
        table = cursor_of(await own.store())
        table.execute("CREATE TABLE s AS SELECT range AS id, range AS n, if(range < 3, 999, 1) AS v FROM range(20)")
        await own.pipeline(
            "orders",
            "connection: default, table: s, key: [id], cursor: {column: n, lookback: 100}",
            "table: t, mode: merge, key: [id]",
            "quality: [{rule: between, column: v, max: 10, on_violation: quarantine}]",
        )

        async def states() -> list[tuple[int, str]]:
            refusals = Refusals("default", "orders", TableName("t"))
            rows = await (await own.store()).refused_rows(refusals, after=None, limit=99)
            return sorted((json.loads(row.record)["id"], str(row.state)) for row in rows)

        await own.report("orders")
        assert await states() == [(0, "open"), (1, "open"), (2, "open")]
        await own.report("orders")
        assert await states() == sorted([*((n, "open") for n in range(3)), *((n, "superseded") for n in range(3))])

        table.execute(
            "UPDATE s SET v = 2 WHERE id = 1; UPDATE s SET v = 3, n = 20 WHERE id = 2; DELETE FROM s WHERE id = 0"
        )
        await own.report("orders")

        assert [state for row, state in await states() if row > 0] == ["superseded"] * 4
        assert [state for row, state in await states() if row == 0] == ["open", "superseded"]
        assert {row["id"]: row["v"] for row in await own.rows("t") if row["v"] > 1} == {1: 2, 2: 3}
