"""Runs over folders named `column=value`: the column lands with its type, goes to quarantine with its row, and comes
back.
"""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.runs.run import RunState
from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_connection, write


@pytest.fixture
async def here(project: Path, postgres_database: str) -> AsyncIterator[Inside]:
    for day, ids in (("2024-01-31", [1, 2, 3]), ("2024-02-01", [4, -5])):
        folder = project / f"data/parquet/day={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"id": ids}), folder / "a.parquet")
        write(project, f"data/csv/day={day}/a.csv", "\n".join(["id", *map(str, ids)]) + "\n")
    async with inside(project) as opened:
        await opened.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        await opened.put(postgres_connection(postgres_database, "warehouse"))
        yield opened


@pytest.mark.parametrize("connection", ["default", "warehouse"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_columns_of_folders_land_with_their_types_and_come_back_from_quarantine(
    kind: str, connection: str, here: Inside
) -> None:
    path = f"connection: landing, path: '{kind}/**/*.{kind}'"
    to = f"connection: {connection}, table: landed"
    rule = "quality: [{rule: between, column: id, min: 0, on_violation: quarantine}]\nrun: {batch_rows: 2}\n"
    await here.pipeline("days", path, to, rule)
    refused = await here.ran("days")
    options = "options: {hive_partitioning: true, types: {day: date}}"
    await here.pipeline("days", f"{path}, {options}", to, rule)
    report = await here.report("days")
    await here.pipeline("days", f"{path}, {options}", to, rule.replace("min: 0", "min: -9"))
    await here.report("days", replay="all")

    assert refused.state is RunState.FAILED
    assert (refused.error and refused.error.code) == "source.folders"
    assert (report["counts"]["used"], report["counts"]["quarantined"]) == (4, 1)
    january, february = date(2024, 1, 31), date(2024, 2, 1)
    found = sorted((row["id"], row["day"]) for row in await here.rows("landed", connection))
    assert found == [(-5, february), (1, january), (2, january), (3, january), (4, february)]


async def test_column_of_a_folder_is_read_as_the_type_that_the_table_has(here: Inside, project: Path) -> None:
    store = await here.store()
    await store.write(TableName("landed"), [pa.table({"id": [0], "day": [date(2023, 1, 1)]})])
    options = "options: {hive_partitioning: true}"
    await here.pipeline("days", f"connection: landing, path: 'csv/**/*.csv', {options}", "table: landed")

    await here.report("days")

    assert {row["day"] for row in await here.rows("landed")} == {date(2023, 1, 1), date(2024, 1, 31), date(2024, 2, 1)}
