"""A thousand columns of text land in a table that is there with columns of other types, value by value; and wide values
that a rule looks at pass.
"""

import csv
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from domain.stores.table import TableName
from tests.e2e.inside import inside
from tests.e2e.projects import postgres_connection, write
from tests.somebody import Somebody

COLUMNS = 1_000
# Of each type: as DuckDB calls it, what is written, and what has to be there.
VALUES: dict[str, tuple[str, list[str], list[Any]]] = {
    "int": ("INTEGER", ["-7", "32767", ""], [-7, 32767, None]),
    "date": ("DATE", ["2026-01-31", "", "0001-01-01"], [date(2026, 1, 31), None, date(1, 1, 1)]),
    "decimal": ("DECIMAL(18,4)", ["0.5", "12345678901234.9999", ""], [Decimal("0.5000"), Decimal("12345678901234.9999"), None]),
    "float": ("DOUBLE", ["0.1", "-2.5", "3"], [0.1, -2.5, 3.0]),
    "bool": ("BOOLEAN", ["true", "", "false"], [True, None, False]),
    "moment": ("TIMESTAMPTZ", ["2026-01-31 10:20:30+02:00", "", "2026-01-31 10:20:30.5Z"],
               [datetime(2026, 1, 31, 8, 20, 30, tzinfo=UTC), None, datetime(2026, 1, 31, 10, 20, 30, 500_000, tzinfo=UTC)]),
    "time": ("TIME", ["10:20:30", "23:59:59.5", ""], [time(10, 20, 30), time(23, 59, 59, 500_000), None]),
    "uuid": ("UUID", ["0189dbb0-8a30-7630-ae80-51d222fda047", "", ""], ["0189dbb0-8a30-7630-ae80-51d222fda047", None, None]),
    "text": ("VARCHAR", ["007", "x", ""], ["007", "x", None]),
}  # fmt: skip
KINDS = [*VALUES] * (COLUMNS // len(VALUES)) + ["int"]
NAMES = [f"{kind}_{number}" for number, kind in enumerate(KINDS)]
AS_TEXT = "options: {types: {" + ", ".join(f"{name}: string" for name in NAMES) + "}}"

SMALL = ", ".join(f"{name}: int16" for name in NAMES if name.startswith("int"))
SMALL = f"transform: [{{cast: {{{SMALL}}}}}]\n"


@pytest.mark.line("29")
async def test_a_thousand_columns_of_text_land_with_their_types(project: Path) -> None:
    """In a child, which may take 400 MB: a hundred by casts, nine hundred as they are."""
    assert len(KINDS) == COLUMNS - COLUMNS % len(VALUES) + 1
    values = {kind: VALUES[kind][1] for kind in VALUES}
    with write(project, "data/wide.csv", "").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(NAMES)
        rows.writerows([values[kind][row] for kind in KINDS] for row in range(3))
    async with inside(project) as here:
        await here.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        store = await here.store()
        columns = ", ".join(f"{name} {VALUES[kind][0]}" for name, kind in zip(NAMES, KINDS, strict=True))
        async with store._session() as (session, thread):  # type: ignore[attr-defined]
            await thread.call(session.execute, f"CREATE TABLE wide ({columns})")
        await here.pipeline(
            "wide", f"connection: landing, path: wide.csv, {AS_TEXT}", "table: wide, mode: append", SMALL
        )
        report = await here.report("wide")
        assert report["counts"]["used"] == 3
        found = await here.rows(str(TableName("wide")))
    for number, row in enumerate(found):
        there = {name: value for name, value in row.items() if not name.startswith("_headrace")}
        expected = {name: VALUES[kind][2][number] for name, kind in zip(NAMES, KINDS, strict=True)}
        assert there == expected
        assert all(type(there[name]) is type(value) for name, value in expected.items())


@pytest.mark.line("29")
async def test_rows_pass_undecoded_though_a_rule_looks_at_their_wide_column(
    project: Path, postgres_database: str, somebody: Somebody
) -> None:
    """A range that is too large for both sessions that read it is read in smaller ones."""
    somebody.does("CREATE TABLE wide (id int PRIMARY KEY, k text)")
    somebody.does(
        "INSERT INTO wide SELECT i, NULLIF(repeat(md5(i::text), i % 30 * 1000), '') FROM generate_series(1, 150) i"
    )
    async with inside(project) as here:
        for name in ("shop", "warehouse"):
            await here.put(postgres_connection(postgres_database, name))
        await here.pipeline(
            "wide",
            "connection: shop, table: wide",
            "connection: warehouse, table: landed",
            "quality: [{rule: not_null, column: k, on_violation: quarantine}]\nrun: {batch_bytes: 2MiB}\n",
        )
        report = await here.report("wide")
    assert report["way"] == "pass-through"
    assert (report["counts"]["used"], report["counts"]["quarantined"]) == (145, 5)
    found = somebody.does("SELECT id, k FROM landed ORDER BY id")
    assert found == somebody.does("SELECT id, k FROM wide WHERE k IS NOT NULL ORDER BY id")
