"""Columns whose names are words of our own statements, or need quotes, land like any others."""

import json
from pathlib import Path

import pytest

from tests.e2e.api import headrace
from tests.e2e.projects import postgres_connection, write
from tests.e2e.tables import duckdb_rows, postgres

WORDS = [
    "place", "placed", "target", "source", "staged", "stepped", "last", "selected", "batch", "keys", "groups", "other",
    "bound", "k", "v", "v0", "v1", "n", "h", "_count", "ordinal", "seq", "position", "fence", "stream", "count", "order", "select", "user", "table",
    "a b", "päth", "%s", "$1", "x;--", "{y}", "kind", "rule", "record", "reason", "lane", "org", "excluded", "new", "old",
]  # fmt: skip


def quoted(name: str) -> str:
    return f'"{name}"'


@pytest.mark.line("15")
@pytest.mark.parametrize("connection", ["default", "shop", "warehouse"])
@pytest.mark.parametrize(
    ("destination", "more"),
    [
        ("mode: append", ""),
        ("mode: replace", "transform: [{sql: select * from batch}]\n"),
        ("mode: merge, key: [place]", ""),
        ("mode: merge, key: [place, last], publish: run, delete_missing: soft", "transform: [{sql: select * from batch}]\n"),
        ("mode: merge, key: [k], deleted_when: 'target < 0'", ""),
    ],
)  # fmt: skip
def test_columns_named_like_our_own_words_land(
    destination: str, more: str, connection: str, project: Path, postgres_database: str
) -> None:
    columns = ", ".join(f"{quoted(name)} bigint" for name in WORDS)
    postgres(postgres_database, f"CREATE TABLE source ({columns}, PRIMARY KEY (place))")
    for row in (1, 2, 3):
        values = ", ".join(str(100 * row + number) for number, _ in enumerate(WORDS))
        postgres(postgres_database, f"INSERT INTO source VALUES ({values})")
    for name in ("shop", "warehouse"):
        write(project, f"connections/{name}.yaml", postgres_connection(postgres_database, name))
    write(
        project,
        "pipelines/words.yaml",
        "version: 1\npipeline: words\nsource: {connection: shop, table: source, key: [place]}\n" + more
        + "quality:\n"
        "  - {rule: not_null, column: order, on_violation: quarantine}\n"
        "  - {rule: between, column: target, min: 0, on_violation: quarantine}\n"
        "  - {rule: unique, columns: [n, last], on_violation: warn}\n"
        "  - {rule: duplicate_rate, columns: [last], max: 0, on_violation: warn}\n"
        "  - {rule: null_rate, column: v, max: 0.5, on_violation: warn}\n"
        "  - {rule: distribution, column: h, max: 0.5, on_violation: warn}\n"
        f"destination: {{connection: {connection}, table: landed, {destination}}}\nrun: {{batch_rows: 2}}\n",
    )  # fmt: skip

    for _ in range(2):
        done = headrace(project, "run", "pipelines/words.yaml", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["report"]["counts"]["used"] == 3

    names = ", ".join(quoted(name) for name in WORDS)
    found = (
        duckdb_rows(project / ".headrace/data.duckdb", f"SELECT DISTINCT {names} FROM landed ORDER BY place")
        if connection == "default"
        else postgres(postgres_database, f"SELECT DISTINCT {names} FROM landed ORDER BY place")
    )
    assert found == [tuple(100 * row + number for number, _ in enumerate(WORDS)) for row in (1, 2, 3)]


@pytest.mark.line("15")
@pytest.mark.parametrize("connection", ["default", "shop"])
@pytest.mark.parametrize("columns", ["normalize", "source"])
@pytest.mark.parametrize("more", ["", "transform: [{sql: select * from batch}]\n", "transform: [{drop: [Id]}]\n"])
def test_columns_that_differ_in_case_alone_are_refused_until_a_query_names_them_apart(
    more: str, columns: str, connection: str, project: Path, postgres_database: str
) -> None:
    postgres(postgres_database, 'CREATE TABLE source (id bigint PRIMARY KEY, "Id" text, "ID" text)')
    postgres(postgres_database, "INSERT INTO source VALUES (1, 'x', 'y')")
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    text = (
        "version: 1\npipeline: words\nsource: {connection: shop, table: source, key: [id]}\n" + more
        + f"destination: {{connection: {connection}, table: landed, columns: {columns}}}\n"
    )  # fmt: skip
    write(project, "pipelines/words.yaml", text)

    refused = headrace(project, "run", "pipelines/words.yaml")
    assert (refused.returncode, "[columns.collision]" in refused.stderr) == (1, True), refused.stderr
    assert "id and Id" in refused.stderr
    query = 'query: \'select id, "Id" as outer_id, "ID" as loud_id from source\''
    write(
        project, "pipelines/words.yaml", text.replace("table: source", query).replace("drop: [Id]", "drop: [loud_id]")
    )
    done = headrace(project, "run", "pipelines/words.yaml", "--abandon")

    assert done.returncode == 0, done.stderr
    query = "SELECT id, outer_id FROM landed"
    in_file = connection == "default"
    found = duckdb_rows(project / ".headrace/data.duckdb", query) if in_file else postgres(postgres_database, query)
    assert found == [(1, "x")]
