"""Rules over the whole run: shares of duplicates, references, freshness; judged alike when the run was interrupted."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.pipelines.checkpoint import Counts, merge_stats
from domain.pipelines.quality import Measures, OnViolation, Reference, Rule, judge
from domain.pipelines.table import TableName
from tests.e2e.api import headrace
from tests.e2e.projects import postgres_environment, write
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
        (Rule("freshness", column="never", max_age=timedelta(hours=1)), "pass", None),
    ],
)
def test_rules_over_the_run_are_judged_by_what_was_measured(rule: Rule, verdict: str, value: float | None) -> None:
    measures = Measures(
        Counts(10, 10, 0, 10),
        duplicates={("id",): 2},
        dangling={Reference("id", TableName("t"), "k"): 3},
        newest={"at": "2026-01-02T00:00:00+00:00", "day": "2026-01-01"},
        now=NOW,
    )

    [result] = judge([rule], measures).results

    assert (result.verdict, result.value) == (verdict, value)


def test_newest_time_of_streams_and_batches_is_kept() -> None:
    merged = merge_stats(
        {"newest": {"a": "2026-01-01", "b": "2026-01-05"}}, {"newest": {"a": "2026-01-03", "c": "2026"}}
    )

    assert merged["newest"] == {"a": "2026-01-03", "b": "2026-01-05", "c": "2026"}


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
