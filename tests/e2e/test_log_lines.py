"""Lines of a request and of a run say, in whatever process, which request, trace, run and pipeline they are about."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import people_pipeline, with_people, write
from tests.faults.installation import installed, with_copies
from tests.servers import RedisServer

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKED = {"X-Request-ID": "shop-42", "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
DOCUMENTED = {
    *("event", "timestamp", "level", "logger", "service", "version", "environment", "correlation_id", "pipeline_id"),
    *("organization_id", "trace_id", "span_id", "batch_id", "record_count", "duration_seconds", "records_per_second"),
    "event_type",
}
FAILING = "  - {rule: between, column: age, min: 0, max: 98}\n"


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def triggered(server: Server, pipeline: str, **headers: str) -> dict[str, Any]:
    asked = server.call("POST", f"/v1/pipelines/{pipeline}/trigger", {}, headers=headers or ASKED)
    assert asked.status == 202, asked.body
    return server.wait_for(asked.body["id"])


def people(project: Path, server: Server, **changes: Any) -> None:
    write(project, "pipelines/people.yaml", people_pipeline(**changes))
    for name in ("connections/landing", "pipelines/people"):
        put = server.call("PUT", f"/v1/{name}", (project / f"{name}.yaml").read_text(), kind="application/yaml")
        assert put.status < 300, put.body


def test_lines_of_a_run_have_the_documented_fields_and_one_trace(project: Path) -> None:
    with_people(project)
    with serving(project, HEADRACE_LOGS__FORMAT="json", OTEL_LOG_LEVEL="debug") as server:
        people(project, server)
        run = triggered(server, "people")
        assert server.stop() == 0
    lines = lines_of(project / "up.log")

    assert len(DOCUMENTED) == 17
    assert all({"service", "version", "environment", "timestamp", "level", "logger"} <= set(line) for line in lines)
    of_run = [line for line in lines if line.get("run_id") == run["id"]]
    batch = next(line for line in of_run if line["event"] == "batch.processed")
    assert DOCUMENTED - set(batch) == set()
    assert [batch[name] for name in ("event_type", "pipeline_id", "organization_id", "record_count")] == [
        *("batch.processed", "people", "default", 98),
    ]
    assert {"pipeline.queued", "pipeline.started", "stream.started", "stream.completed", "pipeline.completed"} <= {
        line["event"] for line in of_run
    }
    request = next(line for line in lines if line["event"] == "http.request" and line["method"] == "POST")
    for line in [request, *of_run]:
        assert (line["correlation_id"], line["trace_id"]) == ("shop-42", TRACE_ID), line
        assert line["organization_id"] == "default", line
    assert [run["correlation_id"], run["trace"].split("-")[1]] == ["shop-42", TRACE_ID]


def test_rule_that_fails_a_run_is_told_before_what_it_ends(project: Path) -> None:
    with_people(project)
    with serving(project, HEADRACE_LOGS__FORMAT="json") as server:
        people(project, server, extra_rules=FAILING)
        run = triggered(server, "people", **{"X-Correlation-ID": "shop-43"})
        assert server.stop() == 0
    told = [line for line in lines_of(project / "up.log") if line.get("run_id") == run["id"]]

    assert [line["event"] for line in told if line["level"] != "info"] == [
        *("data_quality.issue", "batch.failed", "stream.failed", "pipeline.completed"),
    ]
    issue, batch, _, end = (line for line in told if line["level"] != "info")
    expected = {
        "rule": "between(age)", "verdict": "fail", "value": 1.0, "affected_rows": 1, "column": "age",
        "source_connection": "landing", "source_table": "people.csv", "correlation_id": "shop-43",
    }  # fmt: skip
    assert {name: issue[name] for name in expected} == expected
    assert (batch["error_type"], batch["record_count"]) == ("quality.rejected", 100)
    assert (end["status"], end["reason"], end["error_type"]) == ("failed", "quality.rejected", "quality.rejected")
    assert [(rule["rule"], rule["verdict"]) for rule in run["report"]["rules"]] == [("between(age)", "fail")]


def test_run_that_fails_before_a_batch_has_lost_none(project: Path) -> None:
    with_people(project)
    with serving(project, HEADRACE_LOGS__FORMAT="json") as server:
        people(project, server)
        (project / "data/people.csv").unlink()
        run = triggered(server, "people")
        assert server.stop() == 0
    told = {line["event"]: line for line in lines_of(project / "up.log") if line.get("run_id") == run["id"]}

    assert told["pipeline.completed"]["status"] == "failed"
    assert told["pipeline.completed"]["reason"] == run["error"]["code"]
    assert "batch.failed" not in told


@pytest.mark.parametrize("rules", ["  - {rule: row_count, min: 1000000}\n", "  - {rule: unique, columns: [joined]}\n"])
def test_rule_over_all_rows_that_forbids_publishing_is_told_with_its_numbers(project: Path, rules: str) -> None:
    with_people(project)
    with serving(project, HEADRACE_LOGS__FORMAT="json") as server:
        people(project, server, extra_rules=rules)
        run = triggered(server, "people")
        assert server.stop() == 0
    told = [line for line in lines_of(project / "up.log") if line.get("run_id") == run["id"]]
    issue = next(line for line in told if line["event"] == "data_quality.issue" and line["verdict"] == "fail")

    assert run["error"]["code"] == "quality.rejected"
    assert issue["affected_rows"] > 0
    assert issue["value"] > 0
    assert told.index(issue) < next(n for n, line in enumerate(told) if line["event"] == "pipeline.completed")
    assert issue["rule"] in {rule["rule"] for rule in run["report"]["rules"] if rule["verdict"] == "fail"}


@pytest.fixture
def queue() -> Iterator[dict[str, str]]:
    server = RedisServer()
    server.start()
    yield {"HEADRACE_QUEUE__KIND": "redis", "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port)}
    server.stop()


def test_lines_of_a_worker_name_the_request_that_came_to_the_api(
    tmp_path: Path, postgres_database: str, queue: dict[str, str]
) -> None:
    with installed(tmp_path, postgres_database, queue) as made:
        with_copies(made, 1, rows=400)
        server, worker = made.api(), made.worker()
        run = triggered(server, "copy0")
        worker.stop()
        api_lines, worker_lines = made.processes[0].lines(), worker.lines()

    of_run = [line for line in worker_lines if line.get("run_id") == run["id"]]
    assert {"batch.processed", "stream.completed"} <= {line["event"] for line in of_run}
    for line in of_run + [line for line in api_lines if line.get("method") == "POST"]:
        assert (line["correlation_id"], line["trace_id"]) == ("shop-42", TRACE_ID), line


def test_run_shows_where_its_seconds_went_and_its_trace(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    done = json.loads(headrace(project, "run", "pipelines/people.yaml", "--json").stdout)
    shown = headrace(project, "runs", "show", done["id"]).stdout.splitlines()
    spent = done["report"]["spent"]

    assert all(seconds > 0 for seconds in spent.values())
    assert spent == done["report"]["streams"][0]["spent"]
    assert shown[-2].startswith("seconds: 0.")
    assert f"{spent['read']:g} s waiting for the source, {spent['judge']:g} s judging" in shown[-2]
    assert shown[-1] == f"trace: {done['trace'].split('-')[1]}"
