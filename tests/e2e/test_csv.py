"""Runs over CSV files whose types are guesses: what breaks a guess breaks the run by name, before anything
is visible.
"""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from domain.errors import PlatformError
from domain.runs.run import RunState
from domain.stores.table import TableName
from tests.e2e.api import headrace
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_connection, write
from tests.e2e.tables import postgres

LONG = "x" * 400_000
"""A dozen of it are more than what is looked at when a read is planned."""
SOURCE = "connection: landing, path: '*.csv', key: [id]"
BATCHES = "run: {batch_rows: 5}\n"


@pytest.fixture
async def here(project: Path, postgres_database: str) -> AsyncIterator[Inside]:
    async with inside(project) as opened:
        await opened.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        await opened.put(postgres_connection(postgres_database, "warehouse"))
        yield opened


def with_late_code(project: Path, code: str, *more: str) -> None:
    """A file in which the code of the fifteenth row, behind all that is looked at, is the first with leading zeros."""
    codes = [*(str(n) for n in range(14)), code, *more]
    lines = [f"{number},{value},{LONG}" for number, value in enumerate(codes)]
    write(project, "data/codes.csv", "\n".join(["id,code,note", *lines]) + "\n")


@pytest.mark.invariant("D2", "D7")
@pytest.mark.parametrize("connection", ["default", "warehouse"])
async def test_value_that_breaks_a_guess_fails_the_run_by_name_before_anything_is_visible(
    connection: str, here: Inside, project: Path
) -> None:
    with_late_code(project, "007", "42")
    to = f"connection: {connection}, table: codes"
    await here.pipeline("codes", SOURCE, to, BATCHES)
    notes = await here.notes("codes")

    broken = await here.ran("codes")

    assert any(note.startswith("publish: run") and "types: {id: int64, code: int64}" in note for note in notes), notes
    assert broken.state is RunState.FAILED
    message = str(broken.error and broken.error.message)
    assert (
        "codes.csv, line 16: the value of code (text of 3 characters: digits) is not exactly one of type int64"
        in message
    )
    assert "options: {types: {code: string}}" in message
    assert "007" not in message
    store = await here.store(connection)
    assert await store.describe(TableName("codes")) is None

    await here.pipeline("codes", f"{SOURCE}, options: {{types: {{code: string}}}}", to, BATCHES)
    report = await here.report("codes")

    assert report["published"] == "run"
    rows = await here.rows("codes", connection)
    assert sorted(row["code"] for row in rows) == sorted([*(str(n) for n in range(14)), "007", "42"])


@pytest.mark.invariant("D6", "D9")
async def test_rows_that_break_a_guess_go_to_quarantine_where_on_error_allows_it_and_stay_there(
    here: Inside, project: Path
) -> None:
    with_late_code(project, "007")
    await here.pipeline("codes", SOURCE, "table: codes", BATCHES + "on_error: {max_rows: 1}\n")

    counts = (await here.report("codes"))["counts"]
    replayed = await here.ran("codes", replay="all")

    assert (counts["read"], counts["used"], counts["failed"]) == (15, 14, 1)
    assert replayed.report is not None
    assert (replayed.report.counts.read, replayed.report.counts.used) == (1, 0)
    assert sorted(row["code"] for row in await here.rows("codes")) == list(range(14))


async def test_declared_types_are_published_by_batch_and_guesses_never(here: Inside, project: Path) -> None:
    with_late_code(project, "14")
    declared = f"{SOURCE}, options: {{types: {{id: int64, code: int64}}}}"
    await here.pipeline("declared", declared, "table: declared, publish: batch", BATCHES)
    await here.pipeline("guessed", SOURCE, "table: guessed, publish: batch", BATCHES)

    report, refused = await here.report("declared"), await here.ran("guessed")

    assert report["published"] == "batch"
    assert refused.error is not None
    assert refused.error.code == "spec.contradiction"
    assert "types: {id: int64, code: int64}" in refused.error.message


async def test_guess_that_saw_everything_is_published_by_batch(here: Inside, project: Path) -> None:
    write(project, "data/few.csv", "id,code\n1,2\n")
    await here.pipeline("few", SOURCE, "table: few")

    assert (await here.report("few"))["published"] == "batch"


FIRST = "id,n,amount,text,at\n1,5,1.5,007,2024-01-01T10:00:00\n"


@pytest.mark.parametrize("connection", ["default", "warehouse"])
@pytest.mark.parametrize("step", ["", "transform: [{rename: {amount: price}}]\n"])
async def test_next_file_is_read_as_the_types_that_the_table_has(
    step: str, connection: str, here: Inside, project: Path
) -> None:
    """A guess of its own would spell `12.50` in a column of text as a number, and a time of day as another."""
    write(project, "data/a.csv", FIRST)
    await here.pipeline("a", SOURCE, f"connection: {connection}, table: a", step)
    await here.report("a")
    write(project, "data/a.csv", "id,n,amount,text,at\n2,6,7,12.50,2024-01-01 11:00\n3,,2.50,8,\n")

    await here.report("a")

    amount = "price" if step else "amount"
    rows = sorted(await here.rows("a", connection), key=lambda row: row["id"])
    assert [row["text"] for row in rows] == ["007", "12.50", "8"]
    assert [row["n"] for row in rows] == [5, 6, None]
    assert [row[amount] for row in rows] == [Decimal("1.5"), Decimal(7), Decimal("2.5")]


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("2,007,1.5,x,2024-01-01T10:00:00", "n"),
        ("2,1.5,1.5,x,2024-01-01T10:00:00", "n"),
        ("2,5,1.55,x,2024-01-01T10:00:00", "amount"),
        ("2,5,1.5,x,2024-01-01T10:00:00Z", "at"),
        ("2,5,1.5,x,01/02/2024", "at"),
    ],
)
@pytest.mark.parametrize("step", ["", "transform: [{sql: select * from batch}]\n"])
async def test_value_that_the_table_cannot_hold_unchanged_fails_by_name(
    line: str, column: str, step: str, here: Inside, project: Path
) -> None:
    write(project, "data/a.csv", FIRST)
    await here.pipeline("a", SOURCE, "table: a", step)
    await here.report("a")
    write(project, "data/a.csv", f"id,n,amount,text,at\n{line}\n")

    broken = await here.ran("a")

    assert broken.state is RunState.FAILED
    assert f"a.csv, line 2: the value of {column} (text of " in str(broken.error), broken.error
    assert "which the column of a has" in str(broken.error)
    assert f"options: {{types: {{{column}: string}}}} of the source and --full-refresh" in str(broken.error)
    assert len(await here.rows("a")) == 1

    await here.pipeline("a", f"{SOURCE}, options: {{types: {{{column}: string}}}}", "table: a", step)
    await here.report("a", full_refresh=True)

    assert [row[column] for row in await here.rows("a")] == [
        line.split(",")[["id", "n", "amount", "text", "at"].index(column)]
    ]


async def test_what_is_ambiguous_is_told_once_in_plan_and_report(here: Inside, project: Path) -> None:
    write(project, "data/a.csv", "id,joined\n1,01/02/2024\n")
    await here.pipeline("a", SOURCE, "table: a")

    notes, report = await here.notes("a"), await here.report("a")

    assert [note for note in notes if "joined stays text" in note] == [f"note: {report['note']}"]
    assert [row["joined"] for row in await here.rows("a")] == ["01/02/2024"]


def test_run_and_preview_print_what_is_ambiguous_and_a_row_is_one_line(project: Path) -> None:
    write(project, "data/a.csv", 'id,joined,said\n1,01/02/2024,"x\ny"\n')
    write(project, "connections/landing.yaml", "{version: 1, connection: landing, kind: files, options: {root: data}}")
    pipeline = f"{{version: 1, pipeline: a, source: {{{SOURCE}}}, destination: {{table: a}}}}"
    write(project, "pipelines/a.yaml", pipeline)

    shown, done = (headrace(project, command, "pipelines/a.yaml") for command in ("preview", "run"))

    for printed in (shown, done):
        [note] = [line for line in printed.stdout.splitlines() if line.startswith("note: ")]
        assert "joined stays text" in note
        assert "transform: [{sql: " in note
    assert "x\\ny" in shown.stdout
    assert "\ny" not in shown.stdout


def test_unknown_option_of_a_file_is_told_with_those_that_there_are(project: Path) -> None:
    source = "connection: landing, path: a.csv, options: {sep: x}"
    write(project, "pipelines/a.yaml", f"{{version: 1, pipeline: a, source: {{{source}}}, destination: {{table: a}}}}")

    refused = headrace(project, "validate")

    assert "source.options.sep: is not a known key; known are " in refused.stderr + refused.stdout
    assert "delimiter, encoding, skip_rows, types" in refused.stderr + refused.stdout


async def test_encoding_is_declared_in_the_document_and_a_wrong_one_is_no_document(here: Inside, project: Path) -> None:
    (project / "data/a.csv").write_bytes("id,straße\n1,Zürich\n".encode("windows-1252"))
    await here.pipeline("a", SOURCE, "table: a")
    refused = await here.ran("a")
    await here.pipeline("a", f"{SOURCE}, options: {{encoding: windows-1252}}", "table: a")
    await here.report("a")

    assert refused.error is not None
    assert (refused.error.code, "line 1" in refused.error.message) == ("file.encoding", True)
    assert [row["straße"] for row in await here.rows("a")] == ["Zürich"]
    for wrong in ("encoding: rot13", "encoding: punycode", "delimiter: ';;'", "delimiter: '\"'"):
        with pytest.raises((PlatformError, AssertionError)):
            await here.pipeline("a", f"{SOURCE}, options: {{{wrong}}}", "table: a")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("numeric", "12.50", "007"),
        ("numeric(50,2)", "1234567890123456789012345678901234567890.25", "+1"),
        ("integer", "12", "2147483648"),
        ("real", "0.5", "16777217"),
        ("time", "10:20:30", "24:00:00"),
        ("uuid", "0189dbb0-8a30-7630-ae80-51d222fda047", "x"),
    ],
)
async def test_columns_of_a_table_take_what_they_hold_and_refuse_the_rest_by_name(
    kind: str, good: str, bad: str, here: Inside, project: Path, postgres_database: str
) -> None:
    postgres(postgres_database, f"CREATE TABLE there (id bigint, v {kind})")
    await here.pipeline("a", SOURCE, "connection: warehouse, table: there")
    write(project, "data/a.csv", f"id,v\n1,{good}\n")
    await here.report("a")
    write(project, "data/a.csv", f"id,v\n2,{bad}\n")

    broken = await here.ran("a")

    assert "a.csv, line 2: the value of v" in str(broken.error), broken.error
    assert postgres(postgres_database, f"SELECT id, v = '{good}' FROM there") == [(1, True)]
