"""Partitioned runs, retries, time-outs, followers, and what is abandoned: through the command line and the API."""

import contextlib
import json
import time
from pathlib import Path

import pytest
import urllib3
from adbc_driver_postgresql import dbapi

from tests.e2e.api import SLOW_BATCHES, Server, headrace, serving
from tests.e2e.projects import postgres_connection, postgres_environment, with_people, write
from tests.e2e.tables import duckdb_rows, postgres

LEASE = {"HEADRACE_RUN__LEASE_SECONDS": "2", "HEADRACE_RUN__TICK_SECONDS": "0.2"}


def numbers(folder: Path, url: str, *, rows: int = 10_000, more: str = "", destination: str = "") -> dict[str, str]:
    postgres(
        url, f"CREATE TABLE source AS SELECT g::bigint AS id, md5(g::text) AS note FROM generate_series(1, {rows}) g"
    )
    postgres(url, "ALTER TABLE source ADD PRIMARY KEY (id)")
    write(
        folder,
        "pipelines/numbers.yaml",
        "version: 1\npipeline: numbers\nsource: {table: source, partitions: {column: id, count: 4}}\n"
        f"destination: {{table: numbers{destination}}}\nrun: {{batch_rows: 500, parallelism: 3}}\n{more}",
    )
    return postgres_environment(url)


@pytest.mark.invariant("D1", "D6")
def test_partitioned_run_reports_each_stream_and_one_snapshot(project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database)

    done = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert [stream["stream"] for stream in report["streams"]] == ["0", "1", "2", "3"]
    assert [stream["counts"]["used"] for stream in report["streams"]] == [2500] * 4
    assert all(stream["seq"] >= 5 and stream["rows_per_second"] for stream in report["streams"])
    assert report["snapshots"] == 1
    assert report["counts"]["used"] == 10_000
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(10_000, 10_000)]


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("point", ["batch.before_commit:7", "batch.after_commit:7", "publish.before_swap:1"])
def test_partitioned_run_that_is_killed_resumes_each_stream(point: str, project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database)
    killed = headrace(project, "run", "pipelines/numbers.yaml", HEADRACE_FAILPOINT=f"{point}:kill", **settings)
    assert killed.returncode == -9
    before = dict(postgres(postgres_database, "SELECT stream, seq FROM _headrace_checkpoint WHERE stream <> 'head'"))
    # What is written meanwhile belongs to no stream of this read set's first snapshot, and to the second as it is read.
    done = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(10_000, 10_000)]
    after = dict(postgres(postgres_database, "SELECT stream, seq FROM _headrace_checkpoint WHERE stream <> 'head'"))
    assert all(after[name] >= before[name] for name in before)
    assert [stream["counts"]["used"] for stream in report["streams"]] == [2500] * 4
    if sum(before.values()) and "publish" not in point:
        assert report["snapshots"] == 2


@pytest.mark.invariant("D1")
def test_failing_stream_stops_the_others_and_says_what_is_committed(project: Path, postgres_database: str) -> None:
    rule = "quality:\n  - {rule: sql, sql: id <> 9999}\n"
    settings = numbers(project, postgres_database, more=rule)

    failed = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)
    assert failed.returncode == 1
    found = json.loads(failed.stdout)
    assert found["error"]["code"] == "quality.rejected"
    committed = postgres(postgres_database, "SELECT count(*) FROM numbers")[0][0]
    assert found["report"]["counts"]["used"] == committed < 10_000
    assert found["report"]["published"] is None
    write(project, "pipelines/numbers.yaml", (project / "pipelines/numbers.yaml").read_text().replace(rule, ""))
    retried = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)

    assert retried.returncode == 0, retried.stderr
    assert json.loads(retried.stdout)["report"]["adopted"]
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(10_000, 10_000)]


@pytest.mark.invariant("R1", "R6")
def test_unavailable_store_is_tried_again_with_growing_pauses_and_then_given_up(project: Path) -> None:
    with_people(project)
    write(project, "connections/gone.yaml", postgres_connection("postgresql://nobody@127.0.0.1:1/none", "gone"))
    write(
        project,
        "pipelines/people.yaml",
        "version: 1\npipeline: people\nsource: {connection: landing, path: people.csv, key: [id]}\n"
        "destination: {connection: gone, table: people}\nretry: {attempts: 3, backoff: 100ms}\n",
    )
    started = time.monotonic()
    failed = headrace(project, "run", "pipelines/people.yaml", "--json")

    assert failed.returncode == 3
    assert time.monotonic() - started > 0.7  # 0.1, 0.2 and 0.4 s.
    found = json.loads(failed.stdout)
    assert (found["state"], found["retries"], found["attempt"]) == ("failed", 3, 4)
    assert found["error"]["code"] == "store.unavailable"
    logs = json.loads(headrace(project, "runs", "logs", found["id"], "--json").stdout)["items"]
    released = [line for line in logs if line["event"] == "pipeline.released"]
    assert len(released) == 3
    assert [line["reason"] for line in released] == ["retry: store.unavailable"] * 3
    assert released[0]["pause_seconds"] < released[1]["pause_seconds"] < released[2]["pause_seconds"]
    ends = [*released, next(line for line in logs if line["event"] == "pipeline.completed")]
    assert [line["error_type"] for line in ends] == ["store.unavailable"] * 4
    assert all(line["error_message"] for line in ends)
    assert "batch.failed" not in [line["event"] for line in logs]  # There was none yet.


@pytest.mark.invariant("C1")
def test_run_that_takes_too_long_fails_by_name_and_can_be_retried(project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database)
    write(
        project,
        "pipelines/numbers.yaml",
        (project / "pipelines/numbers.yaml").read_text().replace("parallelism: 3", "parallelism: 3, timeout: 1s"),
    )
    postgres(
        postgres_database,
        "CREATE TABLE numbers (id bigint, note text, _headrace_loaded_at timestamptz, _headrace_run_id uuid)",
    )
    with dbapi.connect(postgres_database) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE numbers IN SHARE MODE")
        started = time.monotonic()
        failed = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)
        assert time.monotonic() - started < 12
        connection.rollback()
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"]["code"] == "run.timeout"
    write(
        project,
        "pipelines/numbers.yaml",
        (project / "pipelines/numbers.yaml").read_text().replace(", timeout: 1s", ""),
    )

    assert headrace(project, "run", "pipelines/numbers.yaml", **settings).returncode == 0
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(10_000, 10_000)]


@pytest.mark.invariant("C1")
def test_cancel_interrupts_a_statement_that_hangs(project: Path, postgres_database: str) -> None:
    settings = {**numbers(project, postgres_database), **LEASE}
    with serving(project, **settings) as server:
        put(server, project, "numbers")
        with dbapi.connect(postgres_database) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE numbers (id bigint, note text, _headrace_loaded_at timestamptz, _headrace_run_id uuid)"
            )
            connection.commit()
            cursor.execute("LOCK TABLE numbers IN SHARE MODE")
            run_id = server.call("POST", "/v1/pipelines/numbers/trigger", {}).body["id"]
            while server.call("GET", f"/v1/runs/{run_id}").body["state"] == "queued":
                time.sleep(0.01)
            time.sleep(0.5)
            started = time.monotonic()
            assert server.call("POST", f"/v1/runs/{run_id}/cancel", {}).status == 202

            ended = server.wait_for(run_id, seconds=20)

            assert ended["state"] == "cancelled"
            assert time.monotonic() - started < 10
            connection.rollback()
        active = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'headrace:%' AND state = 'active' "
            "AND datname = current_database()"
        )
        while postgres(postgres_database, active) != [(0,)]:  # Who had waited for the lock sees that nobody listens.
            assert time.monotonic() - started < 20
        assert server.stop() == 0


def put(server: Server, folder: Path, *names: str) -> None:
    for file in sorted((folder / "connections").glob("*.yaml")):
        server.call("PUT", f"/v1/connections/{file.stem}", file.read_text(), kind="application/yaml")
    for name in names:
        answer = server.call(
            "PUT", f"/v1/pipelines/{name}", (folder / f"pipelines/{name}.yaml").read_text(), kind="application/yaml"
        )
        assert answer.status in (200, 201), answer.body


@pytest.mark.invariant("R6")
def test_trace_of_a_request_goes_with_its_run(project: Path) -> None:
    with_people(project, rows=20)
    write(project, "pipelines/people.yaml", follower("people", "x").replace("schedule: {after: [x]}\n", ""))
    trace = "0af7651916cd43dd8448eb211c80319c"
    with serving(project, HEADRACE_LOGS__FORMAT="json", **LEASE) as server:
        put(server, project, "people")
        given = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        asked = server.call("POST", "/v1/pipelines/people/trigger", {}, headers=given).body
        other = server.call("POST", "/v1/pipelines/people/trigger", {}, headers={"traceparent": "00-nonsense"}).body
        assert server.wait_for(asked["id"])["trace"].split("-")[1] == trace
        assert trace not in server.wait_for(other["id"])["trace"]
        assert server.stop() == 0
    lines = [json.loads(line) for line in (project / "up.log").read_text().splitlines() if line.startswith("{")]
    batches = {
        line["trace_id"] for line in lines if line["event"] == "batch.processed" and line["run_id"] == asked["id"]
    }
    assert batches == {trace}


def follower(name: str, after: str) -> str:
    return (
        f"version: 1\npipeline: {name}\nsource: {{connection: landing, path: people.csv, key: [id]}}\n"
        f"destination: {{table: {name}}}\nschedule: {{after: [{after}]}}\n"
    )


@pytest.mark.invariant("S3", "Q1")
def test_followers_run_once_after_each_commit_even_if_the_teller_is_killed(project: Path) -> None:
    with_people(project, rows=50)
    write(project, "pipelines/first.yaml", follower("first", "x").replace("schedule: {after: [x]}\n", ""))
    write(project, "pipelines/second.yaml", follower("second", "first"))
    write(project, "pipelines/third.yaml", follower("third", "second"))
    server_settings = {**LEASE, "HEADRACE_FAILPOINT": "finish.before_state:2:kill"}
    with serving(project, **server_settings) as server:
        put(server, project, "first", "second", "third")
        assert server.call("POST", "/v1/pipelines/first/trigger", {}).status == 202
        assert server.process.wait(timeout=30) == -9
    with serving(project, **LEASE) as server:
        assert server.call("POST", "/v1/pipelines/first/trigger", {}).status == 202
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            runs = server.call("GET", "/v1/runs?limit=100").body["items"]
            if len(runs) == 6 and all(run["state"] == "succeeded" for run in runs):
                break
            time.sleep(0.05)
        assert sorted(run["pipeline"] for run in runs) == ["first"] * 2 + ["second"] * 2 + ["third"] * 2
        causes = {run["id"]: run["cause"] for run in runs}
        by_pipeline = {run["id"]: run["pipeline"] for run in runs}
        assert all((cause is None) == (by_pipeline[run] == "first") for run, cause in causes.items())
        assert all(by_pipeline[cause] != by_pipeline[run] for run, cause in causes.items() if cause)
        assert len({cause for cause in causes.values() if cause}) == 4
        assert server.stop() == 0
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*) FROM third") == [(100,)]


def test_followers_that_would_go_in_circles_or_follow_nothing_are_refused(project: Path) -> None:
    with_people(project, rows=5)
    write(project, "pipelines/a.yaml", follower("a", "b"))
    unknown = headrace(project, "apply", "--yes")
    assert (unknown.returncode, "spec.after_unknown" in unknown.stderr) == (2, True)
    write(project, "pipelines/b.yaml", follower("b", "a"))
    circle = headrace(project, "apply", "--yes")
    assert (circle.returncode, "spec.circle" in circle.stderr) == (2, True)
    write(project, "pipelines/b.yaml", follower("b", "a").replace("schedule: {after: [a]}\n", ""))

    assert headrace(project, "apply", "--yes").returncode == 0


@pytest.mark.invariant("D1", "R5")
@pytest.mark.parametrize(
    "end", ["publish.after_commit:1:kill", "publish.after_commit:1:raise,dest.after_fence:2:raise"]
)
def test_run_that_completes_what_was_left_reads_its_own_rows_too_whatever_happens_between(
    end: str, project: Path, postgres_database: str
) -> None:
    settings = numbers(project, postgres_database, rows=2000)
    text = (project / "pipelines/numbers.yaml").read_text()
    text = text.replace("table: source,", "table: source, cursor: {column: id},") + "retry: {attempts: 0}\n"
    write(project, "pipelines/numbers.yaml", text)
    left = headrace(
        project, "run", "pipelines/numbers.yaml", HEADRACE_FAILPOINT="batch.before_commit:3+:raise", **settings
    )
    assert left.returncode == 3, left.stderr
    postgres(postgres_database, "INSERT INTO source VALUES (5000, 'later')")
    write(project, "pipelines/numbers.yaml", text.replace("attempts: 0", "attempts: 2, backoff: 10ms"))

    done = headrace(project, "run", "pipelines/numbers.yaml", "--json", HEADRACE_FAILPOINT=end, **settings)
    if done.returncode == -9:
        done = headrace(project, "run", "pipelines/numbers.yaml", "--json", **settings)

    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    report = run["report"]
    assert (report["adopted"], report["counts"]["read"], report["counts"]["used"]) == (True, 2001, 2001)
    assert [(part["adopted"], part["counts"]["used"]) for part in report["read_sets"]] == [(True, 2000), (False, 1)]
    assert report["completed_first"]["counts"]["used"] == 2000
    told = json.loads(headrace(project, "runs", "logs", run["id"], "--json", **settings).stdout)["items"]
    assert [line["rows_read"] for line in told if line["event"] == "pipeline.completed"] == [2001]
    found = postgres(postgres_database, "SELECT count(*), count(DISTINCT id), max(id) FROM numbers")
    assert found == [(2001, 2001, 5000)]


@pytest.mark.invariant("D1")
def test_abandon_forgets_what_was_left_and_goes_on_from_the_watermark(project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database, rows=2000)
    text = (project / "pipelines/numbers.yaml").read_text()
    write(project, "pipelines/numbers.yaml", text.replace("table: source,", "table: source, cursor: {column: id},"))
    killed = headrace(
        project, "run", "pipelines/numbers.yaml", HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings
    )
    assert killed.returncode == -9
    committed = postgres(postgres_database, "SELECT count(*) FROM numbers")[0][0]

    done = headrace(project, "run", "pipelines/numbers.yaml", "--abandon", "--json", **settings)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["request"]["abandon"]
    assert not found["report"]["adopted"]
    runs = json.loads(headrace(project, "runs", "list", "--json", **settings).stdout)["items"]
    assert [run["state"] for run in runs] == ["succeeded", "cancelled"]
    # What was committed stays, and everything is read again: the user decided so.
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(2000 + committed, 2000)]


@pytest.mark.invariant("D1", "R1")
def test_released_run_is_not_overtaken_in_its_lane(project: Path, postgres_database: str) -> None:
    settings = {**numbers(project, postgres_database, rows=20_000), **LEASE}
    text = (project / "pipelines/numbers.yaml").read_text().replace("batch_rows: 500", "batch_rows: 100")
    write(project, "pipelines/numbers.yaml", text.replace("table: source,", "table: source, cursor: {column: id},"))
    with serving(project, HEADRACE_FAILPOINT=SLOW_BATCHES, **settings) as server:
        put(server, project, "numbers")
        asked = [server.call("POST", "/v1/pipelines/numbers/trigger", {}).body["id"] for _ in range(3)]
        while server.call("GET", f"/v1/runs/{asked[0]}").body["state"] == "queued":
            time.sleep(0.01)
        assert server.stop() == 0
    with serving(project, **settings) as server:
        ended = [server.wait_for(run_id) for run_id in asked]
        assert server.stop() == 0

    assert [run["state"] for run in ended] == ["succeeded"] * 3
    assert postgres(postgres_database, "SELECT count(*), count(DISTINCT id) FROM numbers") == [(20_000, 20_000)]
    assert ended[0]["attempt"] == 2
    finished = [run["finished_at"] for run in ended]
    assert finished == sorted(finished)


@pytest.mark.invariant("L4", "Q1", "X1")
@pytest.mark.parametrize("end", ["SIGTERM", "kill -9", "queue.after_publish:1:kill"])
def test_run_goes_on_at_once_when_up_is_started_again_on_one_host(end: str, project: Path) -> None:
    with_people(project, rows=20_000)
    write(project, "pipelines/people.yaml", follower("people", "x").replace("schedule: {after: [x]}\n", ""))
    text = (project / "pipelines/people.yaml").read_text()
    write(project, "pipelines/people.yaml", f"{text}run: {{batch_rows: 100}}\n")
    is_killed_by_itself = end.endswith(":kill")
    with serving(project, HEADRACE_FAILPOINT=end if is_killed_by_itself else SLOW_BATCHES) as server:
        put(server, project, "people")
        if is_killed_by_itself:
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                server.call("POST", "/v1/pipelines/people/trigger", {})
            assert server.process.wait(timeout=20) == -9
        else:
            run_id = server.call("POST", "/v1/pipelines/people/trigger", {}).body["id"]
            while server.call("GET", f"/v1/runs/{run_id}").body["state"] == "queued":
                time.sleep(0.01)
            assert (server.stop() if end == "SIGTERM" else server.kill()) == (0 if end == "SIGTERM" else -9)

    with serving(project) as again:  # With the default lease of 30 s: nothing waits for it here.
        ready = time.monotonic()
        while True:
            run = again.call("GET", "/v1/runs").body["items"][0]
            if run["state"] != "queued" and run["attempt"] == (1 if is_killed_by_itself else 2):
                break
            assert time.monotonic() - ready < 10, run
            time.sleep(0.02)
        assert again.wait_for(run["id"])["state"] == "succeeded"
        assert again.stop() == 0
    assert duckdb_rows(project / ".headrace/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM people") == [
        (20_000, 20_000)
    ]


def test_separate_roles_refuse_what_processes_cannot_share(project: Path) -> None:
    for role in ("api", "worker"):
        refused = headrace(project, role)
        assert refused.returncode == 2
        for name in ("HEADRACE_STORE__KIND", "HEADRACE_METADATA__KIND", "HEADRACE_QUEUE__KIND"):
            assert name in refused.stderr
    missing = headrace(project, "config", "check", HEADRACE_QUEUE__KIND="redis")
    assert (missing.returncode, "REDIS_HOST" in missing.stderr) == (2, True)
    missing = headrace(project, "config", "check", HEADRACE_CACHE__KIND="redis")
    assert (missing.returncode, "REDIS_HOST" in missing.stderr) == (2, True)
    missing = headrace(project, "config", "check", HEADRACE_QUEUE__KIND="kafka")
    assert (missing.returncode, "KAFKA_BOOTSTRAP_SERVERS" in missing.stderr) == (2, True)
    assert headrace(project, "config", "check").returncode == 0


@pytest.mark.invariant("X3")
@pytest.mark.parametrize("delay", [0.15, 0.3, 0.45, 0.6, 0.8, 1.0])
def test_signal_during_start_up_or_migration_leaves_a_usable_database(
    delay: float, project: Path, postgres_database: str
) -> None:
    import signal
    import subprocess

    from tests.e2e.api import environment
    from tests.program import start_program

    settings = {**postgres_environment(postgres_database), "HEADRACE_METADATA__KIND": "postgres"}
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = start_program(
            "up", "--port", "0",
            folder=project, environment=environment(**settings), is_executed=True, stderr=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(delay)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode in (0, -number)
        assert "Traceback" not in said
    with_people(project, rows=20)
    write(project, "pipelines/people.yaml", follower("people", "x").replace("schedule: {after: [x]}\n", ""))

    assert headrace(project, "run", "pipelines/people.yaml", **settings).returncode == 0
    assert headrace(project, "db", "current", **settings).stdout == "revision 0007, newest 0007\n"
