"""Rules over the whole run: shares of duplicates, references, freshness; judged alike when the run was interrupted."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.quality.measures import Counts, Measures
from domain.quality.rules import Evidence, OnViolation, Reference, Rule, judge
from domain.stores.table import TableName
from tests.e2e.api import headrace
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import postgres

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "verdict", "value"),
    [
        (Rule("duplicate_rate", columns=("id",), maximum=0.1), "fail", 0.2),
        (Rule("duplicate_rate", columns=("id",), maximum=0.2), "pass", 0.2),
        (Rule("references", column="id", reference=Reference("id", TableName("t"), "k")), "fail", 3.0),
        (
            Rule("references", OnViolation.WARN, column="id", reference=Reference("id", TableName("t"), "k")),
            "warn",
            3.0,
        ),
        (Rule("references", column="id", reference=Reference("id", TableName("t"), "other")), "pass", 0.0),
        (Rule("freshness", column="at", max_age=timedelta(hours=13)), "pass", 12 * 3600.0),
        (Rule("freshness", column="at", max_age=timedelta(hours=11)), "fail", 12 * 3600.0),
        (Rule("freshness", column="day", max_age=timedelta(hours=35)), "fail", 36 * 3600.0),
        (Rule("freshness", column="cursor", max_age=timedelta(hours=3)), "pass", 2 * 3600.0),
        (Rule("freshness", column="cursor", max_age=timedelta(hours=1)), "fail", 2 * 3600.0),
        (Rule("freshness", column="never", max_age=timedelta(hours=1)), "pass", None),
    ],
)
def test_rules_over_the_run_are_judged_by_what_was_measured(rule: Rule, verdict: str, value: float | None) -> None:
    measures = Evidence(
        Counts(10, 10, 0, 10),
        duplicates={("id",): 2},
        dangling={Reference("id", TableName("t"), "k"): 3},
        newest={"at": "2026-01-02T00:00:00+00:00", "day": "2026-01-01"},
        complete={"at": "2026-01-02T11:00:00+00:00", "cursor": "2026-01-02T10:00:00+00:00"},
        now=NOW,
    )

    [result] = judge([rule], measures).results

    assert (result.verdict, result.value) == (verdict, value)


def test_newest_time_of_streams_and_batches_is_kept() -> None:
    merged = Measures(newest={"a": "2026-01-01", "b": "2026-01-05"}) + Measures(newest={"a": "2026-01-03", "c": "2026"})

    assert merged.newest == {"a": "2026-01-03", "b": "2026-01-05", "c": "2026"}


def ruled(project: Path, rules: str, *, more: str = "") -> None:
    write(
        project,
        "pipelines/orders.yaml",
        "version: 1\npipeline: orders\nsource: {table: orders, key: [id]}\ntransform: [{sql: select * from batch}]\n"
        f"quality:\n{rules}destination: {{table: landed{more}}}\nrun: {{batch_rows: 10}}\n",
    )


def run(project: Path, settings: dict[str, str], *more: str, code: int = 0, **extra: str) -> dict[str, Any]:
    done = headrace(project, "run", "pipelines/orders.yaml", "--json", *more, **settings, **extra)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    return found


@pytest.mark.invariant("D7", "D1")
def test_interrupted_run_judges_as_an_uninterrupted_one(project: Path, postgres_database: str) -> None:
    settings = postgres_environment(postgres_database)
    postgres(postgres_database, "CREATE TABLE customers AS SELECT g AS id FROM generate_series(1, 9) g")
    postgres(
        postgres_database,
        'CREATE TABLE orders AS SELECT g::bigint AS id, g % 11 AS "Customer", g % 20 AS grp, '
        "now() - g * interval '1 minute' AS at FROM generate_series(1, 100) g",
    )
    rules = (
        "  - {rule: references, column: Customer, to: customers.id, on_violation: warn}\n"
        "  - {rule: duplicate_rate, columns: [grp], max: 0.5, on_violation: warn}\n"
        "  - {rule: freshness, column: at, max_age: 1h}\n"
        "  - {rule: freshness, column: at, max_age: 1ms, on_violation: warn}\n"
    )
    ruled(project, rules)

    run(project, settings, code=-9, HEADRACE_FAILPOINT="batch.after_commit:4:kill")
    report = run(project, settings)["report"]

    found = {(r["rule"], r["threshold"]): (r["verdict"], r["violations"]) for r in report["rules"]}
    dangling = postgres(postgres_database, 'SELECT count(*) FROM orders WHERE "Customer" NOT BETWEEN 1 AND 9')[0][0]
    assert found["references(Customer)", None] == ("warn", dangling)
    assert found["duplicate_rate(grp)", 0.5] == ("warn", 80)
    assert found["freshness(at)", 3600.0] == ("pass", 0)
    assert found["freshness(at)", 0.001] == ("warn", 1)
    assert report["published"] == "run"

    ruled(project, "  - {rule: references, column: Customer, to: customers.id}\n", more=", publish: run")
    refused = run(project, settings, "--full-refresh", code=1)
    assert refused["error"]["code"] == "quality.rejected"
    assert postgres(postgres_database, "SELECT count(*) FROM landed") == [(100,)]


def test_rule_about_time_needs_a_time(project: Path, postgres_database: str) -> None:
    settings = postgres_environment(postgres_database)
    postgres(postgres_database, "CREATE TABLE orders AS SELECT g::bigint AS id FROM generate_series(1, 3) g")
    ruled(project, "  - {rule: freshness, column: id, max_age: 1h}\n")

    assert run(project, settings, code=1)["error"]["code"] == "quality.type"


def drifting(project: Path, low: int, *, on_violation: str = "warn") -> None:
    lines = "\n".join(f"{low}{n},{low + n % 100},{'CH' if n % 4 else 'DE'}" for n in range(1000))
    write(project, "data/sales.csv", f"id,amount,country\n{lines}\n")
    write(project, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        project,
        "pipelines/sales.yaml",
        f"""version: 1
pipeline: sales
source: {{connection: landing, path: sales.csv, key: [id]}}
quality:
  - {{rule: distribution, column: amount, max: 0.3, on_violation: {on_violation}}}
  - {{rule: distribution, column: country, max: 0.1, on_violation: warn}}
destination: {{table: sales}}
run: {{batch_rows: 90}}
""",
    )


def sales(project: Path, **extra: str) -> dict[str, Any]:
    done = headrace(project, "run", "pipelines/sales.yaml", "--json", **extra)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_distribution_is_compared_with_the_run_before(project: Path) -> None:
    drifting(project, 100)
    first = sales(project)["report"]
    same = sales(project)["report"]
    drifting(project, 500)
    moved = sales(project)["report"]
    drifting(project, 900, on_violation="fail")
    failed = sales(project)

    def found(report: dict[str, Any]) -> list[tuple[str, float | None]]:
        return [(rule["verdict"], rule["value"]) for rule in report["rules"]]

    assert found(first) == [("pass", None), ("pass", None)]
    assert found(same) == [("pass", 0.0), ("pass", 0.0)]
    assert found(moved) == [("warn", 1.0), ("pass", 0.0)]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "quality.rejected")
    profile = first["profiles"]["amount"]
    assert (profile["min"], profile["max"], profile["mean"], profile["count"]) == (100, 199, 149.5, 1000)
    assert first["profiles"]["country"]["top"] == {"CH": 750, "DE": 250}


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("on_violation", ["warn", "fail"], ids=["batch", "run"])
def test_interrupted_run_has_the_distribution_of_an_uninterrupted_one(on_violation: str, project: Path) -> None:
    drifting(project, 100, on_violation=on_violation)
    whole = [sales(project, HEADRACE_HOME="whole") for _ in range(2)]
    headrace(project, "run", "pipelines/sales.yaml", HEADRACE_HOME="killed")
    for point in ("batch.after_commit:3", "batch.before_commit:4", "publish.before_commit:1"):
        killed = headrace(
            project, "run", "pipelines/sales.yaml", HEADRACE_HOME="killed", HEADRACE_FAILPOINT=f"{point}:kill"
        )
        assert killed.returncode == -9, killed.stderr

    resumed = sales(project, HEADRACE_HOME="killed")

    assert resumed["report"]["profiles"] == whole[1]["report"]["profiles"]
    assert resumed["report"]["rules"] == whole[1]["report"]["rules"]
    assert [rule["value"] for rule in resumed["report"]["rules"]] == [0.0, 0.0]


def test_distribution_of_rows_that_pass_undecoded(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "create table s (id bigint primary key, amount numeric(12,2), at timestamptz)")
    postgres(postgres_database, "insert into s select g, g, now() from generate_series(1, 1000) g")
    settings = postgres_environment(postgres_database)
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    text = """version: 1
pipeline: sales
source: {connection: shop, table: s}
quality: [{rule: distribution, column: amount, max: 0.3, on_violation: warn}]
destination: {table: landed}
run: {batch_rows: 300}
"""
    write(project, "pipelines/sales.yaml", text)

    found = sales(project, **settings)
    write(project, "pipelines/sales.yaml", text.replace("column: amount", "column: at"))
    times = headrace(project, "run", "pipelines/sales.yaml", **settings)

    assert found["report"]["way"] == "pass-through"
    assert found["report"]["profiles"]["amount"]["quantiles"]["p50"] == pytest.approx(500, rel=0.02)
    assert (times.returncode, "quality.type" in times.stderr) == (1, True), times.stderr


def test_rows_that_do_not_fit_the_schema_are_told_with_their_number(project: Path) -> None:
    """Per column: values that did not convert, columns that were left out, columns that the table got."""
    write(project, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    pipeline = """version: 1
pipeline: sales
source: {connection: landing, path: sales.csv, key: [id]}
transform: [{cast: {amount: int64}}]
on_error: {max_rows: 5}
destination: {table: sales, schema: SCHEMA}
run: {batch_rows: 2}
"""
    told: list[list[tuple[str, str, int]]] = []
    reports: list[dict[str, Any]] = []
    for header, rows, schema in (
        ("id,amount", ["1,10", "2,x", "3,30", "4,y"], "evolve"),
        ("id,amount,country", ["5,10,CH", "6,20,DE"], "discard_columns"),
        ("id,amount,city", ["7,10,Bern"], "evolve"),
    ):
        write(project, "data/sales.csv", "\n".join([header, *rows]) + "\n")
        write(project, "pipelines/sales.yaml", pipeline.replace("SCHEMA", schema))
        done = headrace(project, "--verbose", "run", "pipelines/sales.yaml", "--json", HEADRACE_LOGS__FORMAT="json")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        found = [line for line in lines if line.get("event_type") == "data_quality.schema_violation"]
        told.append([(line["violation"], line["column"], line["affected_rows"]) for line in found])
        reports.append(json.loads(done.stdout)["report"])

    assert told == [[("unconverted", "amount", 2)], [("column_discarded", "country", 2)], [("column_added", "city", 1)]]
    assert reports[0]["unconverted"] == {"amount": 2}
    assert reports[1]["discarded_columns"] == ["country"]
    assert reports[2]["added_columns"] == ["city"]
