"""Servers and links that fail in the middle of a run: restarted, cut, silent, slow, full; the copy stays exact."""

import contextlib
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from adbc_driver_postgresql import dbapi

from tests.e2e.api import SLOW_BATCHES, environment, headrace, serving, start
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import duckdb_rows
from tests.faults import oracle
from tests.faults.installation import QUICK, installed, trigger, with_copies
from tests.faults.proxy import Proxy
from tests.program import start_program
from tests.servers import PostgresServer

ROWS = 10_000
STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill -9": signal.SIGKILL}


def make_copy(folder: Path, source_url: str, destination_url: str, *, rows: int = ROWS, run: str = "") -> None:
    """`source` in one database, copied to `copied` in another by batches of 100."""
    oracle.postgres_query(source_url)(
        f"CREATE TABLE source AS SELECT g::bigint AS id, md5(g::text) AS note FROM generate_series(1, {rows}) g"
    )
    oracle.postgres_query(source_url)("ALTER TABLE source ADD PRIMARY KEY (id)")
    write(folder, "connections/here.yaml", postgres_connection(source_url, "here"))
    write(folder, "connections/there.yaml", postgres_connection(destination_url, "there"))
    write(
        folder,
        "pipelines/copy.yaml",
        "version: 1\npipeline: copy\nsource: {connection: here, table: source, cursor: {column: id}}\n"
        f"destination: {{connection: there, table: copied}}\nrun: {{batch_rows: 100{run}}}\n"
        "retry: {attempts: 20, backoff: 200ms}\n",
    )


def running(folder: Path, **extra: str) -> "subprocess.Popen[str]":
    return start_program(
        "run", "pipelines/copy.yaml", "--json", folder=folder,
        environment=environment(HEADRACE_FAILPOINT=SLOW_BATCHES, **QUICK, **extra),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until_copied(url: str, rows: int = 1) -> None:
    query, deadline = oracle.postgres_query(url), time.monotonic() + 30
    while time.monotonic() < deadline:
        if (
            query("SELECT count(*) FROM pg_class WHERE relname = 'copied'") == [(1,)]
            and query("SELECT count(*) FROM copied")[0][0] >= rows
        ):
            return
        time.sleep(0.01)
    raise AssertionError("nothing was copied")


def assert_copied(url: str, rows: int = ROWS) -> None:
    assert oracle.postgres_query(url)("SELECT count(*), count(DISTINCT id), max(id) FROM copied") == [
        (rows, rows, rows)
    ]


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("how", list(STOPS))
def test_destination_that_is_restarted_in_the_middle_ends_exact(
    how: str, project: Path, postgres_database: str, own_postgres: PostgresServer
) -> None:
    there = f"{own_postgres.url}/postgres"
    make_copy(project, postgres_database, there)
    process = running(project)
    until_copied(there)
    own_postgres.signal(STOPS[how])
    own_postgres.start()

    told, said = process.communicate(timeout=90)

    assert process.returncode == 0, said
    assert json.loads(told)["state"] == "succeeded"
    assert_copied(there)


@pytest.mark.invariant("R1", "D1")
def test_destination_that_stays_away_keeps_the_run_until_it_can_be_sealed(
    project: Path, postgres_database: str, own_postgres: PostgresServer
) -> None:
    there = f"{own_postgres.url}/postgres"
    make_copy(project, postgres_database, there)
    text = (project / "pipelines/copy.yaml").read_text()
    write(project, "pipelines/copy.yaml", text.replace("attempts: 20", "attempts: 0"))
    process = running(project)
    until_copied(there)
    own_postgres.signal(signal.SIGKILL)
    told, said = process.communicate(timeout=90)
    assert process.returncode == 3, said
    stands = json.loads(told)
    # A late worker might still write, so nobody may call the run failed yet.
    assert (stands["state"], stands["reason"]) == ("running", "sealing")
    own_postgres.start()

    resumed = headrace(project, "run", "pipelines/copy.yaml", "--json", **QUICK)

    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["id"] == stands["id"]
    assert_copied(there)


@pytest.mark.invariant("L4", "D1", "R6")
@pytest.mark.parametrize("how", list(STOPS))
def test_control_database_that_is_restarted_in_the_middle_costs_no_row(
    how: str, project: Path, postgres_database: str, own_postgres: PostgresServer
) -> None:
    make_copy(project, postgres_database, postgres_database)
    records = {
        "HEADRACE_METADATA__KIND": "postgres",
        "HEADRACE_METADATA__URL": f"{own_postgres.url}/postgres",
        "HEADRACE_FAILPOINT": SLOW_BATCHES,
        **QUICK,
    }
    with serving(project, **records) as server:
        for name in ("connections/here", "connections/there", "pipelines/copy"):
            answer = server.call("PUT", f"/v1/{name}", (project / f"{name}.yaml").read_text(), kind="application/yaml")
            assert answer.status == 201, answer.body
        run_id = trigger(server, "copy")
        assert run_id
        until_copied(postgres_database)
        own_postgres.signal(STOPS[how])
        assert server.call("GET", "/health").status == 200  # Liveness touches no dependency (X4).
        ready = server.call("GET", "/ready")
        assert (ready.status, ready.body["parts"]["records"] is not None) == (503, True)
        refused = server.call("GET", "/v1/runs")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        own_postgres.start()

        ended = server.wait_for(run_id, seconds=60)

        assert ended["state"] == "succeeded", ended
        assert server.stop() == 0
    assert_copied(postgres_database)


def proxied(url: str, proxy: Proxy) -> str:
    parts = urlsplit(url)
    return f"postgresql://{parts.username}@127.0.0.1:{proxy.port}{parts.path}"


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    made = Proxy(urlsplit(url).port or 5432)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("trouble", ["slow", "reset", "cut mid-commit", "resets"])
def test_link_to_the_destination_that_fails_ends_exact(trouble: str, project: Path, postgres_database: str) -> None:
    with proxy_to(postgres_database) as proxy:
        make_copy(project, postgres_database, proxied(postgres_database, proxy))
        process = running(project)
        until_copied(postgres_database)
        match trouble:
            case "slow":
                proxy.delay_seconds = 0.02
                time.sleep(1)
                proxy.delay_seconds = 0.0
            case "reset":
                proxy.reset()
            case "resets":
                for _ in range(5):
                    time.sleep(0.2)
                    proxy.reset()
            case _:
                proxy.cut_after = b"COMMIT"
        told, said = process.communicate(timeout=90)

    assert process.returncode == 0, said
    assert_copied(postgres_database)
    if trouble == "cut mid-commit":
        assert proxy.cuts == 1
        assert json.loads(told)["report"]["retries"] + json.loads(told)["retries"] >= 1


@pytest.mark.invariant("D1", "L4", "C1")
def test_link_that_falls_silent_is_given_up_and_the_run_ends_elsewhere(project: Path, postgres_database: str) -> None:
    with proxy_to(postgres_database) as proxy:
        make_copy(project, postgres_database, proxied(postgres_database, proxy), run=", timeout: 3s")
        stuck = running(project)
        until_copied(postgres_database)
        proxy.silence()
        _, said = stuck.communicate(timeout=60)
        assert stuck.returncode != 0  # It has given up by itself; what it held is over with its process.
        assert "Traceback" not in said
        proxy.silence(is_silent=False)
        write(
            project, "pipelines/copy.yaml", (project / "pipelines/copy.yaml").read_text().replace(", timeout: 3s", "")
        )

        done = headrace(project, "run", "pipelines/copy.yaml", **QUICK)
        again = headrace(project, "run", "pipelines/copy.yaml", **QUICK)

    assert again.returncode == 0, done.stderr + again.stderr
    assert_copied(postgres_database)


@pytest.mark.invariant("X4")
def test_exhausted_pool_is_told_and_health_still_answers(project: Path, postgres_database: str) -> None:
    pool = {
        **postgres_environment(postgres_database), "HEADRACE_METADATA__KIND": "postgres", **QUICK,
        "DB_POOL_SIZE": "1", "DB_MAX_OVERFLOW": "0", "HEADRACE_DATABASE__POOL_TIMEOUT_SECONDS": "1",
    }  # fmt: skip
    with serving(project, **pool) as server, dbapi.connect(postgres_database) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE headrace.api_keys IN ACCESS EXCLUSIVE MODE")
        answers: list[tuple[int, str | None]] = []

        def ask() -> None:
            answer = server.call("GET", "/v1/runs")
            answers.append((answer.status, answer.headers.get("Retry-After")))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert server.call("GET", "/health").status == 200
        time.sleep(1.5)
        other.rollback()
        for thread in threads:
            thread.join()

        assert (503, "5") in answers
        assert server.call("GET", "/v1/runs").status == 200  # And it is over as soon as there is room.


@pytest.mark.invariant("D1", "D3")
def test_full_disk_is_named_and_the_run_resumes_when_it_is_freed(project: Path, small_disk: Path) -> None:
    lines = ["id,note", *(f"{n},{'x' * 200} {n * 7919}" for n in range(60_000))]
    write(project, "data/big.csv", "\n".join(lines) + "\n")
    write(project, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        project,
        "pipelines/big.yaml",
        "version: 1\npipeline: big\nsource: {connection: landing, path: big.csv, key: [id]}\n"
        "destination: {table: big}\nrun: {batch_rows: 2000}\nretry: {attempts: 0}\n",
    )
    store = {"HEADRACE_STORE__DUCKDB__PATH": str(small_disk / "data.duckdb")}
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20 * 1024 * 1024)

    full = headrace(project, "run", "pipelines/big.yaml", **store)
    assert full.returncode == 3, full.stderr
    assert "disk_full" in full.stderr
    assert "Traceback" not in full.stderr
    ballast.unlink()
    done = headrace(project, "run", "pipelines/big.yaml", **store)
    if done.returncode != 0:  # The first may have ended the run that was left; the next one completes its read set.
        done = headrace(project, "run", "pipelines/big.yaml", **store)

    assert done.returncode == 0, done.stderr
    found = duckdb_rows(small_disk / "data.duckdb", "SELECT count(*), count(DISTINCT id) FROM big")
    assert found == [(60_000, 60_000)]


@pytest.mark.invariant("D1", "X4")
def test_process_whose_disk_was_full_works_again_once_there_is_room(project: Path, small_disk: Path) -> None:
    """Records, file and everything else of the home are on that disk; nobody has to restart anything."""
    notes = random.Random(7)  # DuckDB would make little of what repeats itself.
    lines = ["id,note", *(f"{n},{notes.randbytes(150).hex()}" for n in range(60_000))]
    write(project, "data/big.csv", "\n".join(lines) + "\n")
    write(project, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    write(
        project,
        "pipelines/big.yaml",
        "version: 1\npipeline: big\nsource: {connection: landing, path: big.csv, key: [id]}\n"
        "destination: {table: big}\nrun: {batch_rows: 5000}\nretry: {attempts: 0}\n",
    )
    settings = {
        "HEADRACE_HOME": str(small_disk / "home"),
        "HEADRACE_RUN__LEASE_SECONDS": "2",
        "HEADRACE_HEALTH__LEAST_FREE_MB": "0",
    }
    assert headrace(project, "apply", "--yes", **settings).returncode == 0
    with contextlib.ExitStack() as stack:
        home = settings.pop("HEADRACE_HOME")
        server = start(project, home=home, HEADRACE_RUN__TICK_SECONDS="0.2", **settings)
        stack.callback(server.kill)
        run_id = server.call("POST", "/v1/pipelines/big/trigger", {}).body["id"]
        deadline = time.monotonic() + 60
        while server.call("GET", "/ready").status != 503:
            assert time.monotonic() < deadline
        resized = subprocess.run(["mount", "-o", "remount,size=400m", small_disk], capture_output=True, check=False)
        assert resized.returncode == 0, resized.stderr

        ended = server.wait_for(run_id)
        while ended["state"] != "succeeded":
            assert (ended["error"]["code"], time.monotonic() < deadline) == ("disk_full", True), ended
            ended = server.wait_for(server.call("POST", f"/v1/runs/{ended['id']}/retry").body["id"])
        assert server.call("GET", "/ready").status == 200
        assert server.stop() == 0
    found = duckdb_rows(small_disk / "home/data.duckdb", "SELECT count(*), count(DISTINCT id) FROM big")
    assert found == [(60_000, 60_000)]


@pytest.mark.invariant("L2")
@pytest.mark.parametrize("queue", ["redis"])
@pytest.mark.parametrize("skew", ["+10m", "-10m"])
def test_clock_that_is_ten_minutes_off_changes_nothing(
    queue: str, skew: str, queue_settings: dict[str, str], project: Path, postgres_database: str
) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed: make system brings it")
    off = {"LD_PRELOAD": str(library), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 2, rows=6_000, batch_rows=100)
        server = made.api()
        right, wrong = made.worker(HEADRACE_FAILPOINT=SLOW_BATCHES), made.worker(**off)
        for number in range(6):
            trigger(server, f"copy{number % 2}")
        time.sleep(1)
        assert right.kill() == -9

        assert made.wait_until_done(6, seconds=90) == {"succeeded": 6}
        assert made.query("SELECT count(*), count(DISTINCT id) FROM copy0") == [(6_000, 6_000)]
        assert made.query("SELECT count(*), count(DISTINCT id) FROM copy1") == [(6_000, 6_000)]
        # The wrong clock took nothing from a worker that was alive: only what was killed has expired.
        expired = made.records("SELECT count(*) FROM run_transitions WHERE reason = 'lease_expired'")
        assert expired[0][0] <= 2
        assert wrong.stop() == 0


@pytest.mark.invariant("D1")
def test_rows_committed_late_and_out_of_cursor_order_are_taken_once(project: Path, postgres_database: str) -> None:
    query = oracle.postgres_query(postgres_database)
    query("CREATE TABLE source (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())")
    write(project, "connections/here.yaml", postgres_connection(postgres_database, "here"))
    write(
        project,
        "pipelines/copy.yaml",
        "version: 1\npipeline: copy\nsource: {connection: here, table: source, cursor: {column: at}}\n"
        "destination: {connection: here, table: copied}\n",
    )
    query("INSERT INTO source SELECT g FROM generate_series(1, 10) g")
    with dbapi.connect(postgres_database) as late, late.cursor() as cursor:
        cursor.execute("INSERT INTO source VALUES (100)")  # Its time is taken now, and it is committed later.
        query("INSERT INTO source SELECT g FROM generate_series(11, 20) g")
        assert headrace(project, "run", "pipelines/copy.yaml").returncode == 0
        first = query("SELECT count(*) FROM copied")[0][0]
        late.commit()
    query("INSERT INTO source VALUES (200)")

    assert headrace(project, "run", "pipelines/copy.yaml").returncode == 0
    time.sleep(0.01)
    assert headrace(project, "run", "pipelines/copy.yaml").returncode == 0

    assert first <= 10
    assert query("SELECT count(*), count(DISTINCT id) FROM copied") == [(22, 22)]


def _restored(folder: Path, work: Callable[[], None]) -> None:
    """Do some work, then put the records back to where they were before it."""
    home, saved = folder / ".headrace", folder.parent / "saved"
    saved.mkdir()
    for file in home.glob("records.db*"):
        shutil.copy(file, saved)
    work()
    for file in home.glob("records.db*"):
        file.unlink()
    for file in saved.iterdir():
        shutil.copy(file, home)


@pytest.mark.invariant("D1", "R3")
def test_control_database_restored_from_a_backup_loads_nothing_twice(project: Path, postgres_database: str) -> None:
    make_copy(project, postgres_database, postgres_database, rows=2000)
    query = oracle.postgres_query(postgres_database)
    killed = headrace(project, "run", "pipelines/copy.yaml", HEADRACE_FAILPOINT="batch.after_commit:5:kill")
    assert killed.returncode == -9

    def go_on() -> None:
        assert headrace(project, "run", "copy").returncode == 0
        query("INSERT INTO source SELECT g, 'new' FROM generate_series(2001, 2500) g")
        assert headrace(project, "run", "copy").returncode == 0
        assert_copied(postgres_database, 2500)

    # The restored records know of one run in the middle of a read set that the destination has long left behind.
    _restored(project, go_on)
    query("INSERT INTO source SELECT g, 'newer' FROM generate_series(2501, 3000) g")
    done = headrace(project, "run", "copy", "--json")

    assert done.returncode == 0, done.stderr
    assert_copied(postgres_database, 3000)
    assert oracle.audit(oracle.sqlite_query(project / ".headrace/records.db")) == []
