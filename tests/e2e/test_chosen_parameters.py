"""A run with parameters of its own reads a part, and does not pass for one that read everything: it supersedes only what
it read, and nothing counts as missing by it.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.identity.principal import Role
from domain.loads.quarantine import Refusals
from domain.runs.run import Run, RunState
from domain.stores.table import DELETED_AT, TableName
from tests.e2e.api import headrace, serving
from tests.e2e.inside import ME, Inside, inside
from tests.e2e.projects import postgres_environment, write
from tests.security.keys import key_of

REGIONS = (
    "query: \"select * from (values (1, 'eu', 999), (2, 'eu', 1), (7, 'us', 999), (8, 'us', 1)) as s(id, region, v) "
    'where region = $region", parameters: {region: eu}, key: [id]'
)
LEAST = 'query: "select v as id, v from generate_series(1, 100) as s(v) where v >= $least", key: [id]'
REFUSED = "run.parameters_and_delete_missing"


@pytest.fixture(params=["duckdb", "postgres"])
async def own(request: pytest.FixtureRequest, project: Path) -> AsyncIterator[Inside]:
    is_postgres = request.param == "postgres"
    environment = postgres_environment(request.getfixturevalue("postgres_database")) if is_postgres else {}
    async with inside(project, **environment) as installation:
        yield installation


def code_of(run: Run) -> str | None:
    assert run.state is RunState.FAILED
    return run.error.code if run.error is not None else None


async def states(own: Inside) -> list[tuple[int, str]]:
    refusals = Refusals("default", "orders", TableName("t"))
    rows = await (await own.store()).refused_rows(refusals, after=None, limit=99)
    return sorted((json.loads(row.record)["id"], str(row.state)) for row in rows)


async def regions(own: Inside, *, most: int, source: str = REGIONS) -> None:
    rule = f"quality: [{{rule: between, column: v, max: {most}, on_violation: quarantine}}]"
    await own.pipeline("orders", source, "table: t, mode: merge, key: [id]", rule)


async def numbers(own: Inside, destination: str, more: str = "") -> None:
    """A hundred numbers, of which a parameter chooses those from it on; all of them by the document's own."""
    source = f"{LEAST}, parameters: {{least: 1}}"
    await own.pipeline("orders", source, f"table: t, mode: merge, key: [id]{destination}", more)


@pytest.mark.invariant("D9")
async def test_a_run_with_parameters_of_its_own_supersedes_only_what_it_reads_again(own: Inside) -> None:
    await regions(own, most=10)
    await own.report("orders", parameters={"region": "us"})
    assert await states(own) == [(7, "open")]
    await own.report("orders")
    assert await states(own) == [(1, "open"), (7, "open")]
    await own.report("orders", parameters={"region": "us"})
    assert await states(own) == [(1, "open"), (7, "open"), (7, "superseded")]
    await own.report("orders", parameters={"region": "eu"})
    assert await states(own) == [(1, "open"), (1, "superseded"), (7, "open"), (7, "superseded")]

    await regions(own, most=1000)
    await own.report("orders", replay="all")

    assert sorted(row["id"] for row in await own.rows("t")) == [1, 2, 7, 8]


@pytest.mark.invariant("D9")
async def test_a_run_with_the_documents_parameters_supersedes_what_such_runs_refused(own: Inside) -> None:
    """Also without a key, by which a row would be told again."""
    await regions(own, most=10, source=REGIONS.removesuffix(", key: [id]"))
    await own.report("orders")
    await own.report("orders", parameters={"region": "us"})
    await own.report("orders", parameters={"region": "eu"})

    assert await states(own) == [(1, "open"), (1, "superseded"), (7, "open")]


@pytest.mark.clause("IDataStore", 22)
@pytest.mark.parametrize("kind", ["hard", "soft"])
async def test_nothing_is_missing_by_a_run_with_parameters_of_its_own(own: Inside, kind: str) -> None:
    await numbers(own, f", delete_missing: {kind}")
    await own.report("orders")

    refused = await own.ran("orders", parameters={"least": 12})
    assert code_of(refused) == REFUSED
    again = await own.use_cases.controller.command_to_retry(ME, refused.id)
    assert code_of(await own.ran("orders", parameters=again.request.parameters)) == REFUSED
    assert code_of(await own.ran("orders", parameters={"least": True})) == REFUSED
    assert code_of(await own.ran("orders", parameters={"least": 12}, full_refresh=True)) == REFUSED

    await own.report("orders", parameters={"least": 1})
    rows = await own.rows("t")
    assert (len(rows), {row.get(DELETED_AT) for row in rows}) == (100, {None})


@pytest.mark.clause("IDataStore", 22)
@pytest.mark.parametrize("part", [{"parameters": {"least": 12}}, {"limit": 90}], ids=["parameters", "limit"])
async def test_a_part_that_was_left_unfinished_is_not_completed_where_missing_rows_are_deleted(
    own: Inside, part: dict[str, Any]
) -> None:
    await numbers(own, "")
    await own.report("orders")
    await numbers(own, ", publish: run", "quality: [{rule: row_count, min: 1000}]")
    assert code_of(await own.ran("orders", **part)) == "quality.rejected"
    await numbers(own, ", delete_missing: hard")

    refused = await own.ran("orders", **part)

    assert code_of(refused) == (REFUSED if "parameters" in part else "run.limit_and_delete_missing")
    assert len(await own.rows("t")) == 100
    await own.report("orders")
    assert len(await own.rows("t")) == 100


@pytest.mark.line("20")
def test_every_door_refuses_parameters_of_its_own_where_missing_rows_are_deleted(project: Path) -> None:
    """Those of a pipeline that replaces its table are there to be chosen by whoever triggers."""
    source = f"{{{LEAST}, parameters: {{least: 1}}}}"
    for name, mode in (("kept", "mode: merge, key: [id], delete_missing: hard"), ("replaced", "mode: replace")):
        text = f"version: 1\npipeline: {name}\nsource: {source}\ndestination: {{table: {name}, {mode}}}\n"
        write(project, f"pipelines/{name}.yaml", text)
    assert headrace(project, "apply", "--yes").returncode == 0

    def run_by_command(name: str) -> dict[str, Any]:
        ended = headrace(project, "run", name, "--param", "least=12", "--json")
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    assert run_by_command("kept")["error"]["code"] == REFUSED
    with serving(project) as server:
        runner, wish = key_of(project, Role.RUNNER), {"parameters": {"least": 12}}

        def run_over_http(path: str, body: Any) -> dict[str, Any]:
            asked = server.call("POST", path, body, key=runner)
            assert asked.status == 202, asked.body
            return server.wait_for(asked.body["id"])

        refused = run_over_http("/v1/pipelines/kept/trigger", wish)
        assert refused["error"]["code"] == REFUSED
        assert run_over_http(f"/v1/runs/{refused['id']}/retry", None)["error"]["code"] == REFUSED
        assert run_by_command("kept")["error"]["code"] == REFUSED
        assert run_over_http("/v1/pipelines/kept/trigger", {})["report"]["counts"]["read"] == 100
        assert run_over_http("/v1/pipelines/replaced/trigger", wish)["report"]["counts"]["read"] == 89
