"""A run that fails before it landed a row leaves nothing behind, and once its cause is mended the next run just works."""

from pathlib import Path
from typing import Any

import pytest

from domain.pipelines.run import RunState
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_environment

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
ENDINGS = {
    "a value does not convert": ("types: {amount: int64}", "", "run.conversion"),
    "a rule fails the batch": ("", "quality: [{rule: not_null, column: note}]\n", "quality.rejected"),
    "a rule fails the run": ("", "quality: [{rule: row_count, min: 100}]\n", "quality.rejected"),
    "a step fails": ("", "transform: [{sql: 'select *, cast(note as int) as n from batch'}]\n", "transform.failed"),
}


@pytest.fixture(params=["duckdb", "postgres"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "duckdb":
        return {}
    return postgres_environment(request.getfixturevalue("postgres_database"))


async def tables(installation: Inside) -> list[str]:
    return [str(table) for table in await (await installation.store()).tables()]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_failed_run_leaves_no_table_and_the_mended_one_just_runs(
    ending: str, project: Path, settings: dict[str, str]
) -> None:
    options, more, code = ENDINGS[ending]
    file = project / "data/orders.csv"
    file.write_text("id,amount,note\n1,5,a\n2,x,\n")
    source = f"connection: landing, path: orders.csv, options: {{{options}}}"
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        await installation.pipeline("orders", source, "table: orders", more)

        run = await installation.ran("orders")

        assert run.error is not None
        assert (run.state, run.error["code"]) == (RunState.FAILED, code), run.error
        assert await tables(installation) == []

        # Both ways to mend it: the file, and the document.
        if ending != "a rule fails the run":  # Its rows are staged, and it goes on with them.
            file.write_text("id,amount,note\n1,5,1\n2,6,2\n")
        await installation.pipeline("orders", source, "table: orders", more.replace("100", "1"))
        report: dict[str, Any] = await installation.report("orders")
        assert report["counts"]["used"] == 2
        assert [row["id"] for row in await installation.rows("orders")] == [1, 2]


async def test_document_that_was_mended_needs_no_option_after_a_run_without_a_row(
    project: Path, settings: dict[str, str]
) -> None:
    """Its source has changed, but nothing of the earlier one has landed."""
    (project / "data/orders.csv").write_text("id,amount\n1,5\n2,x\n")
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        wrong = "connection: landing, path: orders.csv, options: {types: {amount: int64}}"
        await installation.pipeline("orders", wrong, "table: orders")
        assert (await installation.ran("orders")).state is RunState.FAILED

        await installation.pipeline("orders", wrong.replace("int64", "string"), "table: orders")
        await installation.report("orders")

        assert [row["amount"] for row in await installation.rows("orders")] == ["5", "x"]
