"""Runs through the command line: reports, incremental loads, modes, what is refused and how."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.api import SLOW_BATCHES, environment, headrace, serving
from tests.e2e.projects import (
    ROWS,
    UNIQUE,
    people_pipeline,
    postgres_connection,
    postgres_environment,
    with_people,
    write,
)
from tests.e2e.tables import duckdb_rows, postgres, postgres_differences
from tests.servers import PostgresServer, free_port

EVENTS = """version: 1
pipeline: events
source: {connection: shop, table: events, cursor: {column: at, hold_back: 1h}, key: [id]}
destination: {table: copied}
run: {batch_rows: 7}
"""


def ran(folder: Path, *arguments: str, **extra: str) -> dict[str, Any]:
    done = headrace(folder, "run", *arguments, "--json", **extra)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ids(folder: Path) -> list[int]:
    return [row[0] for row in duckdb_rows(folder / ".headrace/data.duckdb", "SELECT id FROM copied ORDER BY id")]


@pytest.mark.invariant("D6", "R5")
def test_report_counts_every_source_row(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline(extra_rules=UNIQUE))

    report = ran(project, "pipelines/people.yaml")["report"]

    counts = report["counts"]
    assert (counts["read"], counts["used"], counts["filtered"], counts["quarantined"], counts["failed"]) == (
        ROWS,
        989,
        1,
        10,
        0,
    )
    assert [(r["rule"], r["verdict"], r["violations"]) for r in report["rules"]] == [
        ("not_null(id)", "pass", 0),
        ("between(age)", "quarantined", 10),
        ("unique(id)", "pass", 0),
    ]
    state = json.loads(headrace(project, "pipelines", "state", "people", "--json").stdout)
    assert state["streams"][0]["state"] == "done"
    record = duckdb_rows(
        project / ".headrace/data.duckdb", "SELECT record FROM _headrace_quarantine ORDER BY seq, ordinal LIMIT 1"
    )
    assert json.loads(record[0][0])["age"] == "999"


def test_same_file_lands_on_duckdb_and_on_postgres_by_one_name(project: Path, postgres_database: str) -> None:
    with_people(project)
    write(project, "connections/warehouse.yaml", postgres_connection(postgres_database))
    write(project, "pipelines/people.yaml", people_pipeline())
    ran(project, "pipelines/people.yaml")
    write(project, "pipelines/people.yaml", people_pipeline(connection="warehouse"))
    ran(project, "pipelines/people.yaml")

    sql = "SELECT id, name, age, shouted, left(CAST(joined AS VARCHAR), 10) FROM people ORDER BY id"
    assert duckdb_rows(project / ".headrace/data.duckdb", sql) == postgres(postgres_database, sql)
    assert postgres(
        postgres_database, "SELECT count(DISTINCT _headrace_run_id), count(_headrace_loaded_at) FROM people"
    ) == [(1, 989)]


def test_incremental_load_takes_each_row_once(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL)")
    insert = (
        "INSERT INTO events SELECT g, now() - interval '1 day' * (100 - g) - interval '2 hours' FROM "
        "generate_series({}) g"
    )
    postgres(postgres_database, insert.format("1, 20"))
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(project, "pipelines/events.yaml", EVENTS)

    first = ran(project, "pipelines/events.yaml")
    again = ran(project, "pipelines/events.yaml")
    postgres(postgres_database, insert.format("100, 100"))
    postgres(postgres_database, "INSERT INTO events VALUES (200, now() - interval '5 minutes')")

    assert (first["report"]["counts"]["read"], again["report"]["counts"]["read"]) == (20, 0)
    assert again["report"]["watermark"] >= first["report"]["watermark"]
    postgres(postgres_database, "UPDATE events SET at = now() - interval '1 minute' WHERE id = 100")
    assert ran(project, "pipelines/events.yaml")["report"]["counts"]["read"] == 0  # Both are younger than hold_back.

    reset = headrace(project, "pipelines", "reset", "events", "--to", "2100-01-01 00:00:00+00:00", "--yes")
    assert reset.returncode == 0, reset.stderr
    assert ran(project, "pipelines/events.yaml")["report"]["counts"]["read"] == 0
    refreshed = ran(project, "pipelines/events.yaml", "--full-refresh")
    assert refreshed["report"]["counts"]["used"] == 20
    assert ids(project) == list(range(1, 21))


def test_limit_ends_the_read_set_earlier_and_the_next_run_goes_on(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE events AS SELECT g::bigint AS id, g::bigint AS at FROM generate_series(1, 30) g",
    )
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(project, "pipelines/events.yaml", EVENTS.replace("hold_back: 1h", "hold_back: 0"))

    assert ran(project, "pipelines/events.yaml", "--limit", "10")["report"]["counts"]["read"] == 10
    assert ids(project) == list(range(1, 11))
    assert ran(project, "pipelines/events.yaml")["report"]["counts"]["read"] == 20
    assert ids(project) == list(range(1, 31))


def test_parameters_of_a_cursor_pipeline_have_a_watermark_of_their_own(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE events AS SELECT g::bigint AS id, g::bigint AS at, CASE WHEN g % 2 = 0 THEN 'CH' ELSE 'DE' END "
        "AS country FROM generate_series(1, 10) g",
    )
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(
        project,
        "pipelines/events.yaml",
        EVENTS.replace(
            "table: events", "query: 'select * from events where country = :country', parameters: {country: CH}"
        ).replace("1h", "0"),
    )

    main = ran(project, "pipelines/events.yaml")
    other = ran(project, "pipelines/events.yaml", "--param", "country=DE")
    wrong = headrace(project, "run", "pipelines/events.yaml", "--param", "town=X")

    assert main["lane"] == "main"
    assert other["lane"].startswith("params:")
    assert ids(project) == list(range(1, 11))
    assert wrong.returncode == 2
    assert "town" in wrong.stderr


def test_changed_source_asks_before_it_starts_again(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database, "CREATE TABLE events AS SELECT g::bigint AS id, g::bigint AS at FROM generate_series(1, 5) g"
    )
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(project, "pipelines/events.yaml", EVENTS.replace("1h", "0"))
    ran(project, "pipelines/events.yaml")
    write(
        project,
        "pipelines/events.yaml",
        EVENTS.replace("1h", "0").replace("table: events", "query: select * from events where id < 4"),
    )

    planned = headrace(project, "plan")
    refused = headrace(project, "run", "pipelines/events.yaml")

    assert "starts again" in planned.stdout
    assert refused.returncode == 1
    assert "run.position_conflict" in refused.stderr
    assert ran(project, "pipelines/events.yaml", "--full-refresh")["report"]["counts"]["used"] == 3
    assert ids(project) == [1, 2, 3]


@pytest.mark.invariant("D7", "D2")
def test_run_that_fails_its_checks_leaves_what_was_there(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline(mode="replace"))
    ran(project, "pipelines/people.yaml")
    (project / "data/people.csv").write_text(
        "id,name,age,joined\n1,a,1,2024-01-01T00:00:00Z\n1,b,2,2024-01-01T00:00:00Z\n"
    )
    write(project, "pipelines/people.yaml", people_pipeline(mode="replace", extra_rules=UNIQUE))

    failed = headrace(project, "run", "pipelines/people.yaml")

    assert failed.returncode == 1
    assert "quality.rejected" in failed.stderr
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*) FROM people") == [(989,)]
    (project / "data/people.csv").write_text("id,name,age,joined\n1,a,1,2024-01-01T00:00:00Z\n")
    assert ran(project, "pipelines/people.yaml", "--full-refresh")["report"]["counts"]["used"] == 1


def test_rows_that_do_not_convert_are_counted_against_on_error(project: Path) -> None:
    with_people(project)
    text = (project / "data/people.csv").read_text() + "x,late,1,2024-01-01T00:00:00Z\n"
    (project / "data/people.csv").write_text(text)
    types = people_pipeline().replace("path: people.csv", "path: people.csv, options: {types: {id: int64}}")
    write(project, "pipelines/people.yaml", types)

    failed = headrace(project, "run", "pipelines/people.yaml")
    write(project, "pipelines/people.yaml", types + "on_error: {max_rows: 1, max_share: 0.01}\n")
    report = ran(project, "pipelines/people.yaml")["report"]

    assert failed.returncode == 1
    assert "run.conversion" in failed.stderr
    assert report["counts"]["failed"] == 1
    assert report["counts"]["read"] == ROWS + 1


def test_dry_run_and_preview_write_nothing(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())

    dry = headrace(project, "run", "pipelines/people.yaml", "--dry-run")
    shown = json.loads(headrace(project, "preview", "pipelines/people.yaml", "--limit", "3", "--json").stdout)

    assert dry.returncode == 0, dry.stderr
    assert "1,000 read, 989 used" in dry.stdout
    assert [row["shouted"] for row in shown["rows"]] == ['NAME, "1"', 'NAME, "2"', 'NAME, "3"']
    assert json.loads(headrace(project, "runs", "list", "--json").stdout)["items"] == []
    assert headrace(project, "pipelines", "list").stdout.count("people") == 0


def test_project_goes_from_init_to_apply_prune_and_delete(tmp_path: Path) -> None:
    assert headrace(tmp_path, "init", "shop").returncode == 0
    folder = tmp_path / "shop"
    assert headrace(tmp_path, "init", "shop").returncode == 2
    assert headrace(folder, "validate").stdout.split() == ["ok", "connection", "landing", "ok", "pipeline", "people"]
    assert headrace(folder, "plan", "--exit-code").returncode == 1
    applied = headrace(folder, "apply")
    assert applied.stdout.startswith("+ create connection landing")
    assert headrace(folder, "plan", "--exit-code").returncode == 0
    report = ran(folder, "people")["report"]
    assert (report["counts"]["used"], report["counts"]["quarantined"]) == (2, 1)
    (folder / "pipelines/people.yaml").unlink()
    assert "- delete pipeline people" in headrace(folder, "apply", "--prune", "--yes").stdout
    assert headrace(folder, "pipelines", "show", "people").returncode == 2
    assert json.loads(headrace(folder, "connections", "discover", "landing", "--json").stdout) == {
        "items": ["people.csv"]
    }
    assert "deleted" not in headrace(folder, "connections", "test", "landing").stdout
    assert headrace(folder, "doctor").returncode == 0
    assert headrace(folder, "health").returncode == 0
    assert headrace(folder, "db", "current").stdout == "revision 0007, newest 0007\n"


@pytest.mark.parametrize(
    ("arguments", "extra", "code", "said"),
    [
        (["config", "check"], {"DB_PORT": "x", "HEADRACE_STORE__KNID": "a"}, 2, "did you mean HEADRACE_STORE__KIND?"),
        (["run", "nothing"], {}, 2, "no pipeline named nothing"),
        (["run", "absent.yaml"], {}, 2, "absent.yaml"),
        (["run", "pipelines/people.yaml", "--detach"], {}, 3, "headrace up"),
        (["pipelines", "show", "nothing"], {}, 2, "no pipeline named nothing"),
        (["connections", "test", "nothing"], {}, 2, "no connection named nothing"),
        (["health"], {"HEADRACE_STORE__KIND": "postgres", "DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "x", "DB_USER": "x"}, 3, ""),
        (["up", "--port", "0"], {"HEADRACE_STORE__KIND": "postgres", "DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "x", "DB_USER": "x"}, 3, "cannot be reached"),
        (["run", "pipelines/people.yaml"], {"HEADRACE_STORE__KIND": "postgres", "DB_HOST": "127.0.0.1", "DB_PORT": "1", "DB_NAME": "x", "DB_USER": "x"}, 3, "cannot be reached"),
        (["--set", "nonsense", "config", "check"], {}, 2, "PATH=VALUE"),
        (["--profile", "prod", "validate"], {}, 2, "profile"),
    ],
)  # fmt: skip
def test_trouble_is_one_sentence_and_an_exit_code(
    arguments: list[str], extra: dict[str, str], code: int, said: str, project: Path
) -> None:
    with_people(project, rows=10)
    write(project, "pipelines/people.yaml", people_pipeline())

    done = headrace(project, *arguments, **extra)

    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr + done.stdout


def test_missing_table_fails_the_run_with_its_name(project: Path, postgres_database: str) -> None:
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    write(project, "pipelines/events.yaml", EVENTS)
    write(
        project,
        "pipelines/local.yaml",
        EVENTS.replace("pipeline: events", "pipeline: local").replace("connection: shop, ", ""),
    )

    for name in ("events", "local"):
        done = headrace(project, "run", f"pipelines/{name}.yaml")
        assert done.returncode == 1
        assert "table.not_found" in done.stderr
        assert "events" in done.stderr


def test_missing_extra_is_named(project: Path) -> None:
    code = (
        "import sys; sys.modules['adbc_driver_postgresql'] = None; sys.argv = ['headrace', 'up', '--port', '0']; "
        "from entrypoints.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False,
        env=environment(**postgres_environment("postgresql://u@127.0.0.1:1/x")), timeout=60,
    )  # fmt: skip

    assert done.returncode == 3
    assert "pip install 'headrace[postgres]'" in done.stderr


def test_taken_port_and_second_server_are_refused(project: Path) -> None:
    with serving(project) as server:
        port = server.url.rsplit(":", 1)[1]
        taken = headrace(project, "up", "--port", port, HEADRACE_HOME="other")
        second = headrace(project, "up", "--port", str(free_port()))
        assert (taken.returncode, second.returncode) == (3, 3)
        assert "--port" in taken.stderr
        assert "runs already" in second.stderr


def test_doors_share_the_server_and_its_file(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    with serving(project) as server:
        through = ran(project, "pipelines/people.yaml")
        detached = json.loads(headrace(project, "run", "people", "--detach", "--json").stdout)
        assert server.wait_for(detached["id"])["state"] == "succeeded"
        status = server.call("GET", "/v1/pipelines/people/status").body
        assert status["last_run"]["id"] == detached["id"]
        shown = server.call("GET", f"/v1/runs/{through['id']}").body
        assert shown["report"] == through["report"]
        history = server.call("GET", f"/v1/runs/{through['id']}/transitions").body["items"]
        assert [line["to"] for line in history] == ["queued", "running", "succeeded"]
        listed = json.loads(headrace(project, "runs", "list", "--json").stdout)["items"]
        assert [run["id"] for run in listed] == [run["id"] for run in server.call("GET", "/v1/runs").body["items"]]
        stood = headrace(project, "pipelines", "state", "people", "--json")
        assert stood.returncode == 0, stood.stderr
        assert json.loads(stood.stdout) == server.call("GET", "/v1/pipelines/people/state").body
        assert json.loads(stood.stdout)["streams"][0]["state"] == "done"
        assert "people: idle" in headrace(project, "pipelines", "state", "people").stdout
        plan = server.call("POST", "/v1/plans", {"documents": []})
        assert plan.body == {"changes": []}
        tables = server.call("GET", "/v1/connections/landing/tables").body
        assert tables == {"items": ["people.csv"]}
        assert server.call("POST", "/v1/connections/landing/test").body["ok"]
        reset = headrace(project, "pipelines", "reset", "people", "--yes", "--json")
        assert reset.returncode == 0, reset.stderr
        assert json.loads(reset.stdout) == server.call("GET", "/v1/pipelines/people/state").body
        assert json.loads(reset.stdout)["streams"] == []
        assert headrace(project, "preview", "people").returncode == 0
        assert headrace(project, "health").returncode == 0
        missing = server.call("GET", "/v1/runs/0189")
        assert (missing.status, missing.body["code"]) == (404, "run.not_found")
        assert server.stop() == 0
    assert ran(project, "people")["report"]["counts"]["used"] == 989


def test_stop_in_the_middle_of_a_run_leaves_a_checkpoint_to_go_on_from(project: Path) -> None:
    with_people(project, rows=4000)
    write(project, "pipelines/people.yaml", people_pipeline().replace("batch_rows: 100", "batch_rows: 50"))
    with serving(project, HEADRACE_FAILPOINT=SLOW_BATCHES) as server:
        for name in ("connections/landing", "pipelines/people"):
            server.call("PUT", f"/v1/{name}", (project / f"{name}.yaml").read_text(), kind="application/yaml")
        run = server.call("POST", "/v1/pipelines/people/trigger").body
        while server.call("GET", f"/v1/runs/{run['id']}").body["state"] == "queued":
            pass
        assert server.stop() == 0
    stopped = json.loads(headrace(project, "runs", "show", run["id"], "--json").stdout)
    assert stopped["state"] == "queued"
    assert stopped["transitions"][-1]["reason"] == "drained"

    done = ran(project, "people")

    assert done["id"] == run["id"]
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM people") == [
        (3959, 3959)
    ]


@pytest.mark.invariant("X4")
def test_liveness_touches_no_dependency_and_readiness_names_the_broken_one(project: Path) -> None:
    database = PostgresServer()
    database.start()
    try:
        with serving(project, **postgres_environment(f"{database.url}/postgres")) as server:
            assert server.call("GET", "/ready").status == 200
            database.stop()
            ready = server.call("GET", "/ready")
            assert ready.status == 503
            assert ready.body["parts"]["store"]
            assert ready.body["parts"]["records"] is None
            assert server.call("GET", "/health").status == 200
            assert server.call("GET", "/version").body["version"]
    finally:
        database.stop()


def test_log_lines_are_json_with_ids_when_asked(project: Path) -> None:
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    with serving(project, HEADRACE_LOGS__FORMAT="json") as server:
        run = ran(project, "pipelines/people.yaml")
        assert server.stop() == 0
    lines = [json.loads(line) for line in (project / "up.log").read_text().splitlines() if line.startswith("{")]

    told = {line["event"]: line for line in lines if line.get("run_id") == run["id"]}
    assert {"pipeline.started", "batch.processed", "pipeline.completed", "data_quality.issue"} <= set(told)
    assert told["batch.processed"]["pipeline_id"] == "people"
    assert told["batch.processed"]["records_per_second"] > 0
    assert told["pipeline.completed"]["event_type"] == "pipeline.completed"
    assert any(line["event"] == "http.request" and line["correlation_id"] for line in lines)
    assert all({"service", "version", "environment", "timestamp", "level"} <= set(line) for line in lines)


def test_server_that_ends_has_said_nothing_but_its_log(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As users start it: what the interpreter lets go of in the end is told by libraries on the same stream."""
    monkeypatch.setenv("HEADRACE_TEST_EXECUTE", "1")
    with_people(project)
    write(project, "pipelines/people.yaml", people_pipeline())
    with serving(project, HEADRACE_LOGS__FORMAT="json") as server:
        ran(project, "pipelines/people.yaml")
        assert server.stop() == 0

    assert [line for line in (project / "up.log").read_text().splitlines() if not line.startswith("{")] == []


def test_home_that_lost_its_records_goes_on_from_the_destination(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE events AS SELECT g::bigint AS id, g::bigint AS at FROM generate_series(1, 30) g",
    )
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    to_postgres = EVENTS.replace("1h", "0").replace("{table: copied}", "{connection: shop, table: copied}")
    write(project, "pipelines/events.yaml", to_postgres)
    for _ in range(3):
        ran(project, "pipelines/events.yaml", HEADRACE_HOME="first")
    killed = headrace(
        project, "run", "pipelines/events.yaml", HEADRACE_HOME="first", HEADRACE_FAILPOINT="plan.after_store:1:kill"
    )
    assert killed.returncode == -9
    postgres(postgres_database, "INSERT INTO events VALUES (31, 31)")

    found = ran(project, "pipelines/events.yaml", HEADRACE_HOME="second")

    assert found["report"]["counts"]["read"] == 1
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM copied") == [(31, 31)]


def test_types_without_arrow_ones_stay_what_they_are_or_are_refused_by_name(
    project: Path, postgres_database: str
) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE events AS SELECT g::bigint AS id, g::numeric / 7 AS share, ARRAY[g, 2] AS pair, "
        "'10.0.0.1'::inet AS host, '{\"a\": 1}'::jsonb AS facts, '01890000-0000-7000-8000-000000000000'::uuid AS ref "
        "FROM generate_series(1, 5) g",
    )
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    text = "version: 1\npipeline: typed\nsource: {connection: shop, table: events, key: [id]}\n"
    rule = "quality: [{rule: not_null, column: id}]\n"
    write(project, "pipelines/typed.yaml", text + rule + "destination: {connection: shop, table: copied}\n")

    ran(project, "pipelines/typed.yaml")
    assert postgres_differences(postgres_database, "events", "copied") == []

    write(project, "pipelines/typed.yaml", text + rule + "destination: {table: copied}\n")
    refused = headrace(project, "run", "pipelines/typed.yaml", "--full-refresh")
    assert refused.returncode == 1
    assert "native:numeric" in refused.stderr
