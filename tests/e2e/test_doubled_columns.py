"""A source that gets a column of the name that a step or a query makes stops the next run; the table stays as it was."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from domain.runs.run import RunState
from tests.e2e.api import headrace
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import write

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
FILE = "connection: landing, path: orders.csv, key: [id]"
STEP = "transform: [{{sql: \"select {}, status = 'gone' as is_gone from batch\"}}]\n"
SAID = "Two columns are named is_gone: write * REPLACE (… AS is_gone)"


async def refused(installation: Inside, name: str) -> tuple[str | None, bool]:
    run = await installation.ran(name)
    assert run.state is RunState.FAILED
    assert run.error is not None
    return run.error.code, SAID in run.error.message


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("schema", ["evolve", "discard_columns", "freeze"])
async def test_source_that_gets_a_column_that_a_step_makes_deletes_nothing(schema: str, project: Path) -> None:
    source = project / "data/orders.csv"
    source.write_text("id,status\n1,new\n2,paid\n3,gone\n")
    into = f"table: landed, mode: merge, key: [id], schema: {schema}, deleted_when: is_gone"

    async def rows() -> list[tuple[Any, ...]]:
        return sorted((row["id"], row["status"]) for row in await installation.rows("landed"))

    async with inside(project) as installation:
        await installation.put(LANDING)
        await installation.pipeline("orders", FILE, into, STEP.format("*"))
        await installation.report("orders")
        assert await rows() == [(1, "new"), (2, "paid")]

        source.write_text("id,status,is_gone\n1,new,true\n2,sent,true\n")
        assert await refused(installation, "orders") == ("transform.invalid", True)
        assert any(SAID in note for note in await installation.notes("orders"))
        assert await rows() == [(1, "new"), (2, "paid")]

        await installation.pipeline("orders", FILE, into, STEP.format("* exclude (is_gone)"))
        await installation.report("orders")
        assert await rows() == [(1, "new"), (2, "sent")]


@pytest.mark.invariant("D1")
async def test_table_that_gets_a_column_that_a_query_on_duckdb_makes_is_not_read(project: Path) -> None:
    query = "connection: own, query: \"select {}, status = 'gone' as is_gone from orders\", key: [id]"
    with duckdb.connect(str(project / "data/own.duckdb")) as connection:
        connection.execute("create table orders as select 1 as id, 'new' as status union all select 2, 'gone'")
    async with inside(project) as installation:
        await installation.put("version: 1\nconnection: own\nkind: duckdb\noptions: {path: data/own.duckdb}\n")
        await installation.pipeline("orders", query.format("*"), "table: landed, mode: replace")
        await installation.report("orders")

    with duckdb.connect(str(project / "data/own.duckdb")) as connection:
        connection.execute("alter table orders add column is_gone boolean default true")
    async with inside(project) as installation:
        assert await refused(installation, "orders") == ("query.duplicate_column", True)
        assert any(SAID in note for note in await installation.notes("orders"))
        assert [row["is_gone"] for row in await installation.rows("landed")] == [False, True]

        await installation.pipeline("orders", query.format("* exclude (is_gone)"), "table: landed, mode: replace")
        await installation.report("orders", abandon=True)
        assert [row["is_gone"] for row in await installation.rows("landed")] == [False, True]


def test_preview_and_spec_tests_refuse_a_step_that_makes_a_column_that_is_there(project: Path) -> None:
    write(project, "connections/landing.yaml", LANDING)
    write(project, "data/orders.csv", "id,status,is_gone\n1,new,true\n")
    write(
        project,
        "pipelines/orders.yaml",
        f"version: 1\npipeline: orders\nsource: {{{FILE}}}\n" + STEP.format("*") + "destination: {table: landed}\n"
        "tests:\n  - {given: [{id: 1, status: new, is_gone: true}], expect: [{id: 1, is_gone: false}]}\n",
    )

    for command in ("preview", "test"):
        done = headrace(project, command, "pipelines/orders.yaml")
        assert (done.returncode != 0, SAID in done.stdout + done.stderr) == (True, True), done.stdout + done.stderr
    text = (project / "pipelines/orders.yaml").read_text()
    write(project, "pipelines/orders.yaml", text.replace(
        "select *, status = 'gone' as is_gone", "select * replace (status = 'gone' as is_gone)"))  # fmt: skip
    for command in ("preview", "test"):
        done = headrace(project, command, "pipelines/orders.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
