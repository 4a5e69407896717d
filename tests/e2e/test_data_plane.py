"""The ways, modes and schema policies of a pipeline, through the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import headrace
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import duckdb_rows, postgres


def run(project: Path, name: str, *more: str, code: int = 0, **settings: str) -> dict[str, Any]:
    done = headrace(project, "run", f"pipelines/{name}.yaml", "--json", *more, **settings)
    assert done.returncode == code, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_csv(project: Path, text: str) -> None:
    write(project, "data/people.csv", text)
    write(project, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")


def from_csv(project: Path, *, destination: str, more: str = "") -> None:
    write(
        project,
        "pipelines/people.yaml",
        "version: 1\npipeline: people\nsource: {connection: landing, path: people.csv}\n"
        f"destination: {{table: people, {destination}}}\n{more}",
    )


@pytest.mark.invariant("D1", "D6")
@pytest.mark.parametrize(
    ("source", "destination", "more", "way"),
    [
        ("shop", "shop", "", "in-database"),
        ("shop", "warehouse", "", "pass-through"),
        ("shop", "warehouse", "quality: [{rule: not_null, column: id}]\n", "pass-through"),
        ("shop", "warehouse", "quality: [{rule: sql, sql: length(note) > 0 and id > 0 and n > 0}]\n", "arrow"),
        ("shop", "warehouse", "transform: [{drop: [n]}]\n", "arrow"),
    ],
)
def test_report_tells_the_way_and_every_way_gives_the_same_rows(
    source: str, destination: str, more: str, way: str, project: Path, postgres_database: str
) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE orders AS SELECT g::bigint AS id, 'note ' || g AS note, g AS n FROM generate_series(1, 5000) g",
    )
    postgres(postgres_database, "ALTER TABLE orders ADD PRIMARY KEY (id)")
    for name in ("shop", "warehouse"):
        write(project, f"connections/{name}.yaml", postgres_connection(postgres_database, name))
    write(
        project,
        "pipelines/copy.yaml",
        f"version: 1\npipeline: copy\nsource: {{connection: {source}, table: orders}}\n{more}"
        f"destination: {{connection: {destination}, table: copied}}\nrun: {{batch_rows: 1000}}\n",
    )

    report = run(project, "copy")["report"]

    assert report["way"] == way, report["way_because"]
    assert report["counts"]["used"] == report["counts"]["produced"] == 5000
    columns = "id, note" if "drop" in more else "id, note, n"
    for left, right in (("orders", "copied"), ("copied", "orders")):
        both = f"SELECT {columns} FROM {left} EXCEPT ALL SELECT {columns} FROM {right}"
        assert postgres(postgres_database, both) == []
    assert postgres(
        postgres_database,
        "SELECT count(*) FROM copied WHERE _headrace_run_id IS NULL OR _headrace_loaded_at IS NULL",
    ) == [(0,)]


@pytest.mark.invariant("D1", "D6")
def test_violations_are_kept_aside_while_the_other_rows_pass_undecoded(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE orders AS SELECT g::bigint AS id, CASE WHEN g % 1500 <> 0 THEN g END AS n, md5(g::text) AS note "
        "FROM generate_series(1, 5000) g",
    )
    postgres(postgres_database, "ALTER TABLE orders ADD PRIMARY KEY (id)")
    for name in ("shop", "warehouse"):
        write(project, f"connections/{name}.yaml", postgres_connection(postgres_database, name))
    write(
        project,
        "pipelines/copy.yaml",
        "version: 1\npipeline: copy\nsource: {connection: shop, table: orders}\n"
        "quality: [{rule: not_null, column: n, on_violation: quarantine}]\n"
        "destination: {connection: warehouse, table: copied}\nrun: {batch_rows: 1000}\n",
    )

    report = run(project, "copy")["report"]

    assert report["way"] == "pass-through"
    counts = report["counts"]
    assert (counts["read"], counts["used"], counts["quarantined"]) == (5000, 4997, 3)
    kept = postgres(postgres_database, "SELECT record::json ->> 'id' FROM _headrace_quarantine ORDER BY 1")
    assert kept == [("1500",), ("3000",), ("4500",)]
    found = "SELECT count(*), count(n), count(_headrace_run_id) FROM copied"
    assert postgres(postgres_database, found) == [(4997, 4997, 4997)]


@pytest.mark.invariant("D5")
def test_death_between_two_new_columns_leaves_a_table_that_the_next_run_completes(
    project: Path, postgres_database: str
) -> None:
    settings = postgres_environment(postgres_database)
    with_csv(project, "id,name\n1,a\n")
    from_csv(project, destination="mode: append")
    run(project, "people", **settings)
    with_csv(project, "id,name,age,city\n2,b,7,Bern\n")

    killed = headrace(
        project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT="ddl.between_columns:1:kill", **settings
    )
    assert killed.returncode == -9
    run(project, "people", **settings)

    rows = postgres(postgres_database, "SELECT id, name, age, city FROM people ORDER BY id")
    assert rows == [(1, "a", None, None), (2, "b", 7, "Bern")]


def test_schema_policies_add_refuse_and_leave_out_new_columns(project: Path) -> None:
    with_csv(project, "id,name\n1,a\n")
    from_csv(project, destination="mode: append")
    run(project, "people")
    with_csv(project, "id,name,age\n2,b,7\n")

    from_csv(project, destination="schema: freeze")
    refused = run(project, "people", "--abandon", code=1)
    assert refused["error"]["code"] == "schema.frozen"
    assert "age" in refused["error"]["message"]
    from_csv(project, destination="schema: discard_columns")
    assert run(project, "people", "--abandon")["report"]["discarded_columns"] == ["age"]
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT id, name FROM people ORDER BY id") == [
        (1, "a"),
        (2, "b"),
    ]
    from_csv(project, destination="schema: evolve")
    run(project, "people")
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT id, age FROM people ORDER BY id, age") == [
        (1, None),
        (2, 7),
        (2, None),
    ]


@pytest.mark.invariant("D8")
def test_merge_follows_a_source_that_changes(project: Path) -> None:
    with_csv(project, "id,name,status\n1,a,new\n2,b,new\n1,c,new\n")
    from_csv(project, destination="mode: merge, key: [ID], deleted_when: status = 'deleted'")
    first = run(project, "people")["report"]
    assert (first["counts"]["produced"], first["counts"]["deduplicated"]) == (3, 1)
    with_csv(project, "id,name,status\n2,b,deleted\n3,d,new\n")
    run(project, "people")
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT id, name FROM people ORDER BY id") == [
        (1, "c"),
        (3, "d"),
    ]

    from_csv(project, destination="mode: merge, key: [id], delete_missing: hard, max_deleted_share: 0.4")
    refused = run(project, "people", code=1)
    assert refused["error"]["code"] == "delete_missing.share"
    limited = run(project, "people", "--limit", "1", "--abandon", code=1)
    assert limited["error"]["code"] == "run.limit_and_delete_missing"
    with_csv(project, "id,name,status\n1,z,new\n3,d,new\n")
    run(project, "people", "--abandon")
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT id, name FROM people ORDER BY id") == [
        (1, "z"),
        (3, "d"),
    ]


@pytest.mark.invariant("D8")
def test_merge_runs_one_stream_unless_the_partition_column_is_its_key(project: Path, postgres_database: str) -> None:
    settings = postgres_environment(postgres_database)
    postgres(
        postgres_database,
        "CREATE TABLE events AS SELECT g::bigint AS id, g % 10 AS grp FROM generate_series(1, 1000) g",
    )
    postgres(postgres_database, "ALTER TABLE events ADD PRIMARY KEY (id)")

    def streams(key: str, step: str) -> int:
        write(
            project,
            "pipelines/events.yaml",
            "version: 1\npipeline: events\nsource: {table: events, partitions: {column: id, count: 4}}\n"
            f"transform: [{step}]\ndestination: {{table: t_{key}, mode: merge, key: [{key}]}}\n",
        )
        return len(run(project, "events", "--abandon", **settings)["report"]["streams"])

    assert streams("id", "{rename: {grp: part}}") == 4
    assert streams("id", "{cast: {id: int32}}") == 1
    assert streams("grp", "{cast: {grp: int64}}") == 1
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT grp), min(id) FROM t_grp") == [(10, 10, 991)]
    assert postgres(postgres_database, "SELECT count(*) FROM t_id") == [(1000,)]


def test_python_function_of_the_project_is_a_step_and_its_hash_is_in_the_report(project: Path) -> None:
    with_csv(project, "id,name\n1,a\n2,b\n")
    write(
        project,
        "python/clean.py",
        "import pyarrow.compute as pc\n\n\ndef names(rows):\n"
        "    return rows.set_column(rows.schema.get_field_index('name'), 'name', pc.utf8_upper(rows['name']))\n",
    )
    from_csv(project, destination="mode: append", more="transform: [{python: 'local.clean:names'}]\n")

    report = run(project, "people")["report"]

    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT name FROM people ORDER BY id") == [("A",), ("B",)]
    assert report["python"][0]["name"] == "local.clean:names"
    denied = run(project, "people", code=1, HEADRACE_TRANSFORMS__PYTHON_ALLOWED="other")
    assert denied["error"]["code"] == "transform.python_unknown"


@pytest.mark.invariant("D8")
def test_streams_that_merge_into_a_table_without_an_index_wait_and_do_not_deadlock(
    project: Path, postgres_database: str
) -> None:
    postgres(postgres_database, "create table source (id bigint primary key, note text)")
    postgres(postgres_database, "insert into source select g, 'note ' || g from generate_series(1, 4000) g")
    postgres(postgres_database, "create table merged (id bigint, note text)")
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(
        project,
        "pipelines/merged.yaml",
        "version: 1\npipeline: merged\nsource: {connection: shop, table: source, key: [id], "
        "partitions: {column: id, count: 4}}\ndestination: {table: merged, mode: merge, key: [id]}\n"
        "run: {batch_rows: 50, parallelism: 4}\n",
    )

    done = headrace(project, "run", "pipelines/merged.yaml", "--json", **postgres_environment(postgres_database))

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert (len(report["streams"]), report["retries"]) == (4, 0)
    assert postgres(postgres_database, "select count(*), count(distinct id) from merged") == [(4000, 4000)]
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    assert postgres(postgres_database, deadlocks) == [(0,)]
