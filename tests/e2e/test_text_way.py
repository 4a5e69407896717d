"""Text that DuckDB converts while it writes it lands as it does row by row, or not at all: the same values, counts and
words.
"""

import asyncio
import csv
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.runs.run import RunState
from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import new_project, write
from tests.ports.test_csv import CELLS, KINDS, NUMBERS, ODD

FILES = "connection: landing, path: '*.csv'"
ROW_BY_ROW = "transform: [{sql: select * from batch}]\n"


VALUES = {
    "uuid": "0189dbb0-8a30-7630-ae80-51d222fda047", "json": "{}", "float32": "1.5", "int16": "12", "uint8": "200",
    "timestamptz": "2024-01-02 10:20:30+02:00", "timestamp": "2024-01-02T10:20:30.5", "date": "2024-01-02", "time": "10:20:30",
    "bool": "true",
}  # fmt: skip


@pytest.fixture
async def here(project: Path) -> AsyncIterator[Inside]:
    async with inside(project) as opened:
        await opened.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        yield opened


def numbered(project: Path, **files: range) -> list[dict[str, Any]]:
    for name, numbers in files.items():
        lines = [f'{n},"note, ""{n}""\n",{n}.50' for n in numbers]
        write(project, f"data/{name}.csv", "\n".join(["id,note,amount", *lines]) + "\n")
    return [{"id": n, "note": f'note, "{n}"\n', "amount": f"{n}.50"} for numbers in files.values() for n in numbers]


def shown(rows: list[dict[str, Any]]) -> list[str]:
    """Rows in an order, with the types of their values and without our columns."""
    return sorted(repr({k: v for k, v in row.items() if not k.startswith("_headrace")}) for row in rows)


@pytest.mark.clause("IDataStore", 2, 10, 25)
@pytest.mark.parametrize("mode", ["append", "replace"])
async def test_parts_follow_one_another_over_the_borders_of_files(mode: str, here: Inside, project: Path) -> None:
    expected = numbered(project, a=range(10), b=range(10, 11), c=range(11, 30))
    await here.pipeline("notes", FILES, f"table: notes, mode: {mode}", "run: {batch_rows: 7}\n")
    await here.pipeline("row_by_row", FILES, f"table: row_by_row, mode: {mode}", ROW_BY_ROW)

    notes = await here.notes("notes")
    report = await here.report("notes")
    decoded = await here.report("row_by_row")

    assert (report["way"], decoded["way"]) == ("text", "arrow")
    assert [note for note in notes if note.startswith(("way", "warning"))] == [
        f"way: text, because {report['way_because']}"
    ]
    assert report["streams"][0]["batches"] == 5
    assert report["counts"] == decoded["counts"] == {**report["counts"], "read": 30, "used": 30, "produced": 30}
    rows = await here.rows("notes")
    assert [(row["id"], row["note"], str(row["amount"])) for row in rows] == [tuple(row.values()) for row in expected]
    assert shown(rows) == shown(await here.rows("row_by_row"))
    assert {name for row in rows for name, value in row.items() if value is None} == set()


async def drawn(content: str, options: str) -> tuple[Any, ...]:
    """Load a file both ways; give of each the state, the error, the types and the rows."""
    folder = Path(tempfile.mkdtemp())
    try:
        project = new_project(folder / "project")
        write(project, "data/drawn.csv", "").write_text(content, newline="")
        async with inside(project) as here:
            await here.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
            found = []
            for name, more in (("converted", ""), ("row_by_row", ROW_BY_ROW)):
                await here.pipeline(name, f"{FILES}{options}", f"table: {name}", more)
                run = await here.ran(name)
                assert run.state is not RunState.SUCCEEDED or (run.report and run.report.way) == (
                    "arrow" if more else "text"
                )
                table = await (await here.store()).describe(TableName(name))
                rows = await here.rows(name) if table else []
                types = [(column.name, column.type) for column in table.columns] if table else []
                told = run.error.to_json() if run.error is not None else {}
                error = {**told, "message": str(told.get("message")).replace(name, "")}
                found.append((run.state, error, types, shown(rows)))
            return tuple(found)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells=st.lists(CELLS, min_size=1, max_size=8), nulls=st.booleans())
def test_drawn_values_land_as_they_do_row_by_row(cells: list[list[str]], nulls: bool) -> None:
    height = max(len(column) for column in cells)
    names = [f"c{number}" for number in range(len(cells))]
    lines = [
        ",".join('"' + column[row % len(column)].replace('"', '""') + '"' for column in cells) for row in range(height)
    ]
    content = "\n".join([",".join(names), *lines, *([","] * 2 if nulls and len(names) == 2 else [])]) + "\n"

    converted, row_by_row = asyncio.run(drawn(content, ""))

    assert converted == row_by_row


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cells=st.lists(st.one_of(ODD, NUMBERS), min_size=1, max_size=6), kind=st.sampled_from([*KINDS, "string"]))
def test_drawn_values_of_a_declared_type_land_or_fail_as_they_do_row_by_row(cells: list[str], kind: str) -> None:
    content = "\n".join(["c,d", *('"' + text.replace('"', '""') + '",x' for text in cells)]) + "\n"

    converted, row_by_row = asyncio.run(drawn(content, f', options: {{types: {{c: "{kind}"}}}}'))

    assert converted == row_by_row


@pytest.mark.invariant("D6")
async def test_value_in_a_later_part_is_told_or_put_aside_by_who_looks_at_every_row(
    here: Inside, project: Path
) -> None:
    numbered(project, a=range(20))
    write(project, "data/b.csv", "id,note,amount\n20,x,1.50\n21,y,one\n22,z,2.50\n")
    typed = f'{FILES}, options: {{types: {{id: int64, note: string, amount: "decimal(10,2)"}}}}'
    await here.pipeline("notes", typed, "table: notes", "run: {batch_rows: 4}\n")

    failed = await here.ran("notes")

    message = str(failed.error and failed.error.message)
    assert failed.state is RunState.FAILED
    assert "b.csv, line 3" in message
    assert "one" not in message

    await here.pipeline("notes", typed, "table: lenient", "run: {batch_rows: 4}\non_error: {max_rows: 1}\n")
    report = await here.report("notes", abandon=True)

    counts = report["counts"]
    assert (counts["read"], counts["used"], counts["failed"]) == (23, 22, 1)
    assert sorted(row["id"] for row in await here.rows("lenient")) == [*range(21), 22]


@pytest.mark.parametrize(
    ("tail", "words"),
    [("20,x\n", "line 3"), ('20,"x,1\n', "is never closed"), ("20,x,1.5\0\n", "NUL")],
    ids=["too-few-fields", "open-quote", "nul"],
)
async def test_file_that_breaks_off_is_told_with_its_line_and_nothing_of_its_part_lands(
    tail: str, words: str, here: Inside, project: Path
) -> None:
    numbered(project, **{f"a{number:02d}": range(number, number + 1) for number in range(17)})
    # Behind the files whose beginning is looked at.
    write(project, "data/b.csv", f"id,note,amount\n17,{'x' * 100_000},1.5\n{tail}")
    declared = f'{FILES}, options: {{types: {{id: int64, note: string, amount: "decimal(10,2)"}}}}'
    await here.pipeline("notes", declared, "table: notes, publish: batch", "run: {batch_rows: 10}\n")

    failed = await here.ran("notes")

    message = str(failed.error and failed.error.message)
    assert failed.state is RunState.FAILED
    assert "b.csv" in message
    assert words in message
    assert [row["id"] for row in await here.rows("notes")] == [*range(10)]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("quality: [{rule: not_null, column: id}]\n", "conversion"),
        ("quality: [{rule: null_rate, column: note, max: 0.1}]\n", "conversion"),
        ("transform: [{rename: {note: text}}]\n", "conversion"),
        ("quality: [{rule: unique, columns: [id]}]\n", ""),
        ("typed: uuid", "conversion"),
        ("typed: json", "conversion"),
        *(
            (f"typed: {kind}", "")
            for kind in ("timestamptz", "timestamp", "date", "time", "bool", "uint8", "float32", "int16")
        ),
        ("quality: [{rule: row_count, min: 1}]\n", ""),
    ],
)
async def test_who_looks_at_values_gets_them(more: str, why: str, here: Inside, project: Path) -> None:
    numbered(project, a=range(5))
    kind, options = more.removeprefix("typed: "), ""
    if kind != more:  # What DuckDB has a type of its own for is text on the way through a transform.
        value = VALUES[kind]
        write(project, "data/a.csv", "id,note\n" + f"{value},x\n" * 5)
        options, more = f", options: {{types: {{id: {kind}}}}}", ""
    await here.pipeline("notes", f"{FILES}{options}", "table: notes", more)

    report = await here.report("notes")

    assert why in report["way_because"], report
    assert len(await here.rows("notes")) == 5


async def test_table_with_other_types_takes_what_it_holds_unchanged(here: Inside, project: Path) -> None:
    numbered(project, a=range(5))
    await here.pipeline("notes", f"{FILES}, options: {{types: {{id: int16}}}}", "table: notes, publish: batch")
    await here.report("notes")
    numbered(project, a=range(70_000, 70_003))
    await here.pipeline("notes", FILES, "table: notes, publish: batch")

    failed = await here.ran("notes")

    assert failed.state is RunState.FAILED
    assert sorted(row["id"] for row in await here.rows("notes")) == [*range(5)]


def test_names_that_sql_knows_are_names(tmp_path: Path) -> None:
    names = ["select", "a b", 'quo"te', "_headrace_0", "$x", "Ä"]
    path = tmp_path / "names.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, ["1", "2", "3.5", "4", "2024-01-01", "true"]])

    converted, row_by_row = asyncio.run(drawn(path.read_text(), ""))

    assert converted == row_by_row
