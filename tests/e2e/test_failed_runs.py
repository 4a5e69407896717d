"""A run that fails before it landed a row leaves nothing behind, and once its cause is mended the next run
just works.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.runs.run import RunState
from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import postgres_environment
from tests.e2e.tables import postgres

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
        assert (run.state, run.error.code) == (RunState.FAILED, code), run.error
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


SECRET = "s3kr1t,9"
LINES = f'id,amount,note\n1,5,a\n2,"{SECRET}",b\n3,7,\n4,500,d\n'
TYPED = "connection: landing, path: orders.csv, key: [id], options: {types: {amount: int64}, null_text: ''}"
QUALITY = """quality:
  - {rule: not_null, column: note, on_violation: quarantine}
  - {rule: between, column: amount, max: 100, on_violation: quarantine}
"""


async def test_first_errors_name_column_shape_and_line_and_no_rule_is_blamed_for_a_conversion(
    project: Path, settings: dict[str, str]
) -> None:
    (project / "data/orders.csv").write_text(LINES)
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        await installation.pipeline("orders", TYPED, "table: orders", QUALITY + "on_error: {max_rows: 1}\n")

        report = await installation.report("orders")

    found = {error["place"]: error for error in report["first_errors"]}
    told = {place: (error["kind"], error["column"], error["shape"]) for place, error in found.items()}
    assert told == {
        "orders.csv, line 3": ("conversion", "amount", "text of 8 characters: digits, letters and a comma"),
        "orders.csv, line 4": ("rule", "note", "NULL"),
        "orders.csv, line 5": ("rule", "amount", "text of 3 characters: digits"),
    }
    assert [rule["violations"] for rule in report["rules"]] == [1, 1]
    assert report["unconverted"] == {"amount": 1}
    assert SECRET not in str(report)


async def test_failed_batch_tells_its_first_errors_though_nothing_of_it_is_committed(
    project: Path, settings: dict[str, str]
) -> None:
    (project / "data/orders.csv").write_text(LINES)
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        await installation.pipeline("orders", TYPED, "table: orders")
        unconverted = await installation.ran("orders")
        rule = "quality: [{rule: not_null, column: note}]\non_error: {max_rows: 1}\n"
        await installation.pipeline("orders", TYPED, "table: orders", rule)
        violated = await installation.ran("orders")

    for run, code, kind, place in (
        (unconverted, "run.conversion", "conversion", "orders.csv, line 3"),
        (violated, "quality.rejected", "rule", "orders.csv, line 4"),
    ):
        assert run.error is not None
        assert run.report is not None
        assert run.error.code == code
        first = run.report.to_json()["first_errors"][0]
        assert (first["kind"], first["place"]) == (kind, place)
        assert SECRET not in str(run.report) + str(run.error)
    assert "amount (text of 8 characters: digits, letters and a comma)" in (
        unconverted.error and unconverted.error.message
    )


@pytest.mark.parametrize(
    ("transform", "quality", "blamed"),
    [
        ("[{sql: 'select *, cast(note as int) as n from batch'}]", "", "A step"),
        (
            "[{sql: 'select *, cast(note as int) as n from batch'}]",
            "[{rule: not_null, column: id, on_violation: quarantine}]",
            "A step",
        ),
        ("[]", "[{rule: sql, sql: 'cast(note as int) > 0', on_violation: warn}]", "A rule"),
        (
            "[{sql: 'select * from batch'}]",
            "[{rule: sql, sql: 'cast(note as int) > 0', on_violation: warn}]",
            "A rule",
        ),
    ],
)
async def test_statement_that_fails_on_a_value_says_whether_it_is_a_step_or_a_rule(
    transform: str, quality: str, blamed: str, project: Path
) -> None:
    (project / "data/orders.csv").write_text("id,note\n1,5\n2,s3kr1t\n")
    async with inside(project) as installation:
        await installation.put(LANDING)
        more = (f"transform: {transform}\n" if transform != "[]" else "") + (f"quality: {quality}\n" if quality else "")
        await installation.pipeline("orders", "connection: landing, path: orders.csv", "table: orders", more)

        run = await installation.ran("orders")

    assert run.error is not None
    assert run.error.code == "transform.failed"
    assert run.error.message.startswith(f"{blamed} failed on a value of note that does not convert to INT32")
    assert "s3kr1t" not in run.error.message


async def test_date_that_a_format_does_not_read_says_the_function_that_does_without(project: Path) -> None:
    (project / "data/orders.csv").write_text("id,day\n1,01/02/2024\n2,s3kr1t\n")
    async with inside(project) as installation:
        await installation.put(LANDING)
        step = "transform: [{sql: \"select * replace (strptime(day, '%d/%m/%Y')::date as day) from batch\"}]\n"
        await installation.pipeline("orders", "connection: landing, path: orders.csv", "table: orders", step)

        run = await installation.ran("orders")

    assert run.error is not None
    assert run.error.code == "transform.failed"
    assert run.error.message.startswith("A step failed on a text that strptime does not read by its format")
    assert "try_strptime gives NULL instead" in run.error.message
    assert "s3kr1t" not in run.error.message


async def test_first_errors_of_a_table_name_the_row_of_the_batch(project: Path, postgres_database: str) -> None:
    async with inside(project, **postgres_environment(postgres_database)) as installation:
        store = await installation.store()
        await store.write(TableName("numbers"), [pa.table({"id": range(1, 101), "amount": range(1, 101)})])
        rule = "quality: [{rule: between, column: amount, max: 97, on_violation: quarantine}]\nrun: {batch_rows: 40}\n"
        await installation.pipeline("copied", "table: numbers, key: [id]", "table: copied", rule)

        report = await installation.report("copied")

    assert [(error["place"], error["column"], error["shape"]) for error in report["first_errors"]] == [
        (f"row {row} of batch 3 in stream 0", "amount", f"a number of {digits} digits")
        for row, digits in ((18, 2), (19, 2), (20, 3))
    ]


@pytest.mark.parametrize(
    "destination", ["table: kept", "table: kept, mode: replace", "table: kept, mode: merge, key: [id]"]
)
async def test_full_refresh_gives_a_table_of_wrong_types_the_right_ones(
    destination: str, project: Path, settings: dict[str, str]
) -> None:
    file = project / "data/orders.csv"
    file.write_text("id,amount\n1,5\n2,6\n")
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        await installation.pipeline("kept", "connection: landing, path: orders.csv, key: [id]", destination)
        await installation.report("kept")
        file.write_text("id,amount\n1,five\n2,6.5\n")
        assert (await installation.ran("kept")).state is RunState.FAILED

        await installation.report("kept", full_refresh=True)

        assert sorted((row["id"], row["amount"]) for row in await installation.rows("kept")) == [
            (1, "five"),
            (2, "6.5"),
        ]
        if "merge" in destination:  # Its key is there again.
            file.write_text("id,amount\n2,seven\n")
            await installation.report("kept")
            assert len(await installation.rows("kept")) == 2


async def test_full_refresh_keeps_the_types_of_a_table_on_which_other_things_hang(
    project: Path, postgres_database: str
) -> None:
    file = project / "data/orders.csv"
    file.write_text("id,amount\n1,5\n")
    async with inside(project, **postgres_environment(postgres_database)) as installation:
        await installation.put(LANDING)
        await installation.pipeline("kept", "connection: landing, path: orders.csv", "table: kept")
        await installation.report("kept")
        for hanging, gone in (
            ("create view seen as select amount from kept", "drop view seen"),
            ("create index found on kept (amount)", "drop index found"),
            ("comment on column kept.amount is 'in cents'", "comment on column kept.amount is null"),
        ):
            file.write_text("id,amount\n1,5\n")
            postgres(postgres_database, hanging)
            file.write_text("id,amount\n1,five\n")
            run = await installation.ran("kept", full_refresh=True)
            assert run.error is not None
            assert (run.error.code, "kept" in run.error.message) == ("run.conversion", True), run.error
            assert [row["amount"] for row in await installation.rows("kept")] == [5]
            postgres(postgres_database, gone)

        postgres(postgres_database, "vacuum kept")  # Until then its catalog says that it has an index.
        await installation.report("kept", full_refresh=True)
        assert [row["amount"] for row in await installation.rows("kept")] == ["five"]


@pytest.mark.parametrize("mode", ["append", "merge, key: [id]"])
async def test_what_an_abandoned_load_leaves_in_the_table_is_told(
    mode: str, project: Path, settings: dict[str, str]
) -> None:
    """Its rows are committed, whoever was loading them; what nobody has seen needs no words."""
    file = project / "data/orders.csv"
    rule = "quality: [{rule: between, column: note, max: 100}]\nrun: {batch_rows: 10}\n"
    source = "connection: landing, path: orders.csv, key: [id], options: {types: {id: int64, note: int64}}"
    async with inside(project, **settings) as installation:
        await installation.put(LANDING)
        for publish, told in (("batch", True), ("run", False)):
            name = f"kept_{publish}"
            await installation.pipeline(name, source, f"table: {name}, mode: {mode}, publish: {publish}", rule)
            file.write_text("id,note\n" + "".join(f"{n},{n // 25 * 999}\n" for n in range(30)))
            failed = await installation.ran(name)
            assert failed.error is not None
            assert failed.error.code == "quality.rejected"
            stay = len(await installation.rows(name)) if told else 0
            file.write_text("id,note\n" + "".join(f"{n},1\n" for n in range(30)))

            report = await installation.report(name, abandon=True)

            assert stay in ((10, 20) if told else (0,))  # Judging is ahead of writing.
            assert len(await installation.rows(name)) == 30 + (stay if mode == "append" else 0)
            warnings = report.get("warnings", [])
            begin = f"the {stay} rows that the abandoned read set"
            assert [(w.startswith(begin), name in w) for w in warnings] == [(True, True)] * told
            assert "warnings" not in await installation.report(name)


@pytest.mark.parametrize(("size", "code"), [(2_000, "key.ties"), (100_000, "source.row_too_large")])
async def test_load_that_was_too_large_for_its_batches_goes_on_with_larger_ones(
    size: int, code: str, project: Path
) -> None:
    async with inside(project) as installation:
        await installation.put("version: 1\nconnection: other\nkind: duckdb\noptions: {path: data/other.duckdb}\n")
        store = await installation.store("other")
        rows = pa.table({"k": [*range(9), *[9] * 59], "text": [*["short"] * 9, *["x" * size] * 59]})
        await store.write(TableName("s"), [rows])
        source, wanted = "connection: other, table: s, key: [k]", "table: t, publish: batch"
        await installation.pipeline("large", source, wanted, "run: {batch_bytes: 64KiB, batch_rows: 1}\n")
        failed = await installation.ran("large")
        assert failed.error is not None
        assert failed.error.code == code
        assert 0 < len(await installation.rows("t")) < 10

        await installation.pipeline("large", source, wanted, "run: {batch_bytes: 16MiB, batch_rows: 1}\n")
        report = await installation.report("large")

        assert report["adopted"]
        assert sorted(row["k"] for row in await installation.rows("t")) == [*range(9), *[9] * 59]
