"""What goes wrong in the middle of a run has a name, leaves nothing half-written, and the run goes on once it is
mended.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from adbc_driver_postgresql import dbapi

from tests.e2e.api import environment, headrace, serving
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import postgres, postgres_differences
from tests.faults.test_stopped_workers import until_stopped
from tests.program import start_program
from tests.servers import PostgresServer

ROWS = 900
WAYS = {
    "pass-through": "",
    "arrow": "transform: [{sql: select * from batch}]\n",
    "merge": "transform: [{sql: select * from batch}]\n",
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def numbers(project: Path, url: str, way: str, *, more: str = "") -> dict[str, str]:
    """A table of numbers and a pipeline that copies it on a way, in three batches and a bit."""
    postgres(url, "create table numbers (id bigint primary key, note text)")
    postgres(url, f"insert into numbers select g, 'note ' || g from generate_series(1, {ROWS}) g")
    write(project, "connections/shop.yaml", postgres_connection(url, "shop"))
    mode = ", mode: merge, key: [id]" if way == "merge" else ""
    write(
        project,
        "pipelines/numbers.yaml",
        f"version: 1\npipeline: numbers\nsource: {{connection: shop, table: numbers, key: [id]}}\n{WAYS[way]}"
        f"destination: {{table: landed{mode}}}\nrun: {{batch_rows: 250}}\nretry: {{attempts: 0}}\n{more}",
    )
    return postgres_environment(url)


def run(project: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return headrace(project, "run", "pipelines/numbers.yaml", *arguments, **extra)


def refused(project: Path, code: str, *arguments: str, exit_code: int = 1, **extra: str) -> str:
    done = run(project, *arguments, **extra)
    assert (done.returncode, code in done.stderr) == (exit_code, True), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def exact(url: str) -> None:
    postgres(url, "create table found as select id, note from landed")
    assert postgres_differences(url, "numbers", "found") == []


@pytest.mark.invariant("D1", "D3")
@pytest.mark.line("29")
def test_cell_of_200_megabytes(project: Path, postgres_database: str, way: str) -> None:
    settings = numbers(project, postgres_database, way)
    postgres(postgres_database, "update numbers set note = repeat('x', 200 * 1024 * 1024) where id = 600")

    refused(project, "source.row_too_large", **settings)

    # Only batches that were committed are promised to stay. The server refuses the row while a driver still gathers
    # those in front of it, so there may be none: then no table is left, else whole batches from the first row on.
    if postgres(postgres_database, "select to_regclass('landed') is not null") == [(True,)]:
        landed = postgres(
            postgres_database,
            "select count(*), count(distinct id), min(id), max(id), bool_and(note = 'note ' || id) from landed",
        )
        assert landed in ([(count, count, 1, count, True)] for count in (250, 500))
    postgres(postgres_database, "update numbers set note = 'cut' where id = 600")
    done = run(project, **settings)
    assert done.returncode == 0, done.stderr
    exact(postgres_database)


@pytest.mark.invariant("D1", "D5")
def test_column_of_the_source_that_changes_its_type_in_the_middle(
    project: Path, postgres_database: str, way: str
) -> None:
    settings = numbers(project, postgres_database, way)
    killed = run(project, HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings)
    assert killed.returncode == -9
    postgres(postgres_database, "alter table numbers alter column note type varchar(40)")
    postgres(postgres_database, "alter table numbers alter column id type numeric")

    refused(project, "source.changed", **settings)

    assert postgres(postgres_database, "select count(*), count(distinct id) from landed") == [(500, 500)]
    postgres(postgres_database, "alter table numbers alter column note type text")
    postgres(postgres_database, "alter table numbers alter column id type bigint")
    done = run(project, **settings)
    assert done.returncode == 0, done.stderr
    exact(postgres_database)


@pytest.mark.invariant("D1", "D5")
def test_column_that_the_source_gets_or_loses_in_the_middle(project: Path, postgres_database: str, way: str) -> None:
    """What was planned is read to its end; a new column comes with the next read set."""
    settings = numbers(project, postgres_database, way)
    assert run(project, HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings).returncode == -9
    postgres(postgres_database, "alter table numbers rename column id to number")

    assert "--abandon" in refused(project, "source.changed", **settings)

    postgres(postgres_database, "alter table numbers rename column number to id")
    postgres(postgres_database, "alter table numbers add column extra int default 7")
    done = run(project, **settings)
    assert done.returncode == 0, done.stderr
    postgres(postgres_database, "create table planned as select id, note from numbers")
    postgres(postgres_database, "create table found as select id, note from landed")
    assert postgres_differences(postgres_database, "planned", "found") == []
    if way == "merge":
        assert run(project, **settings).returncode == 0
        assert postgres(postgres_database, "select count(*), sum(extra) from landed") == [(ROWS, 7 * ROWS)]


@pytest.mark.invariant("D1", "D5")
def test_column_of_the_destination_that_changes_its_type_in_the_middle(
    project: Path, postgres_database: str, way: str
) -> None:
    settings = numbers(project, postgres_database, way)
    assert run(project, HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings).returncode == -9
    postgres(postgres_database, "alter table landed alter column note type int using id")

    done = run(project, **settings)

    assert done.returncode == 1, done.stdout
    assert "schema." in done.stderr or "run.conversion" in done.stderr, done.stderr
    assert postgres(postgres_database, "select count(*), count(distinct id) from landed") == [(500, 500)]
    postgres(postgres_database, "alter table landed alter column note type text using 'note ' || id")
    done = run(project, **settings)
    assert done.returncode == 0, done.stderr
    exact(postgres_database)


@pytest.mark.invariant("D1")
def test_table_of_the_source_that_is_dropped_in_the_middle(project: Path, postgres_database: str, way: str) -> None:
    settings = numbers(project, postgres_database, way)
    assert run(project, HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings).returncode == -9
    postgres(postgres_database, "alter table numbers rename to elsewhere")

    refused(project, "table.not_found", **settings)

    assert postgres(postgres_database, "select count(*), count(distinct id) from landed") == [(500, 500)]
    postgres(postgres_database, "alter table elsewhere rename to numbers")
    assert run(project, **settings).returncode == 0
    exact(postgres_database)


@pytest.mark.invariant("D1", "D3")
def test_table_of_the_destination_that_is_dropped_in_the_middle(
    project: Path, postgres_database: str, way: str
) -> None:
    """What was committed is gone with it, so going on would leave half a table that looks like a whole one."""
    settings = numbers(project, postgres_database, way)
    assert run(project, HEADRACE_FAILPOINT="batch.after_commit:2:kill", **settings).returncode == -9
    postgres(postgres_database, "drop table landed")

    said = refused(project, "destination.missing", **settings)

    assert "--full-refresh" in said
    assert postgres(postgres_database, "select to_regclass('landed')::text") == [(None,)]
    done = run(project, "--full-refresh", **settings)
    assert done.returncode == 0, done.stderr
    exact(postgres_database)


def test_table_that_is_dropped_while_batches_come(project: Path, postgres_database: str, way: str) -> None:
    """Dropped between two batches of one attempt, by somebody who does not wait for the run."""
    settings = numbers(project, postgres_database, way)
    write(
        project,
        "pipelines/numbers.yaml",
        (project / "pipelines/numbers.yaml").read_text().replace("batch_rows: 250", "batch_rows: 1"),
    )
    with serving(project, **settings) as server:
        for name in ("connections/shop", "pipelines/numbers"):
            text = (project / f"{name}.yaml").read_text()
            assert server.call("PUT", f"/v1/{name}", text, kind="application/yaml").status == 201
        asked = server.call("POST", "/v1/pipelines/numbers/trigger").body
        deadline = time.monotonic() + 20
        while postgres(postgres_database, "select to_regclass('landed')::text") == [(None,)]:
            assert time.monotonic() < deadline
        postgres(postgres_database, "drop table landed")
        done = server.wait_for(asked["id"])

        assert (done["state"], done["error"]["code"]) == ("failed", "destination.missing"), done
        assert server.call("GET", "/health").status == 200


@pytest.mark.invariant("D5")
def test_column_that_changes_its_type_while_batches_come(project: Path, postgres_database: str, way: str) -> None:
    """Between two batches of one attempt: whatever lands is what the source has, or the run fails by name."""
    settings = numbers(project, postgres_database, way)
    text = (project / "pipelines/numbers.yaml").read_text()
    write(project, "pipelines/numbers.yaml", text.replace("batch_rows: 250", "batch_rows: 3"))
    with serving(project, **settings) as server:
        for name in ("connections/shop", "pipelines/numbers"):
            text = (project / f"{name}.yaml").read_text()
            assert server.call("PUT", f"/v1/{name}", text, kind="application/yaml").status == 201
        asked = server.call("POST", "/v1/pipelines/numbers/trigger").body
        deadline = time.monotonic() + 20
        while postgres(postgres_database, "select to_regclass('landed')::text") == [(None,)]:
            assert time.monotonic() < deadline
        while postgres(postgres_database, "select count(*) from landed") == [(0,)]:
            assert time.monotonic() < deadline
        postgres(postgres_database, "alter table landed alter column id type double precision")
        done = server.wait_for(asked["id"])

        landed = postgres(postgres_database, "select id::bigint from landed order by 1")
        assert landed == [(number,) for number in range(1, len(landed) + 1)]
        if way == "pass-through":
            assert (done["state"], done["error"]["code"]) == ("failed", "destination.changed"), done
            assert len(landed) < ROWS
        else:
            assert (done["state"], len(landed)) == ("succeeded", ROWS), done


@pytest.mark.invariant("D1")
@pytest.mark.parametrize(
    ("way", "table", "batch"),
    [*((way, "landed", 2) for way in WAYS), ("pass-through", "_headrace_checkpoint", 1)],
)
def test_somebody_who_waits_for_a_whole_table_gets_it_and_the_run_goes_on(
    project: Path, postgres_database: str, way: str, table: str, batch: int
) -> None:
    """As ALTER, TRUNCATE and VACUUM FULL do: no session of a run may wait behind them while another keeps
    them waiting.
    """
    settings = numbers(project, postgres_database, way)
    copying = start_program(
        "run", "pipelines/numbers.yaml", folder=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        environment=environment(HEADRACE_FAILPOINT=f"batch.after_checkpoint:{batch}:stop", **settings),
    )  # fmt: skip
    lock = f"do $$ begin lock table {table} in access exclusive mode; end $$"
    locking = threading.Thread(target=postgres, args=(postgres_database, lock), daemon=True)
    try:
        until_stopped(copying)
        locking.start()
        deadline = time.monotonic() + 20
        while (
            locking.is_alive()
            and postgres(
                postgres_database, f"select 1 from pg_locks where relation = '{table}'::regclass and not granted"
            )
            == []
        ):
            assert time.monotonic() < deadline
        os.kill(copying.pid, signal.SIGCONT)
        said = copying.communicate(timeout=20)
    finally:
        if copying.poll() is None:
            copying.kill()
    locking.join(20)

    assert (copying.returncode, locking.is_alive()) == (0, False), said
    exact(postgres_database)


@pytest.mark.invariant("D5")
def test_table_that_is_gone_before_the_next_run_of_a_cursor(project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database, "pass-through")
    text = (project / "pipelines/numbers.yaml").read_text()
    write(project, "pipelines/numbers.yaml", text.replace("key: [id]}", "key: [id], cursor: {column: id}}"))
    assert run(project, **settings).returncode == 0
    postgres(postgres_database, "drop table landed")

    refused(project, "destination.missing", **settings)

    assert headrace(project, "pipelines", "reset", "numbers", "--to", "500", "--yes", **settings).returncode == 0
    assert run(project, **settings).returncode == 0
    assert postgres(postgres_database, "select count(*), min(id) from landed") == [(401, 500)]
    postgres(postgres_database, "drop table landed")
    assert headrace(project, "pipelines", "reset", "numbers", "--yes", **settings).returncode == 0
    assert run(project, **settings).returncode == 0
    exact(postgres_database)


@pytest.fixture
def small_space(own_postgres: PostgresServer) -> Iterator[Path]:
    """The tablespace of a server of its own: 24 megabytes. In a shared one a full disk would stop every checkpoint."""
    url = f"{own_postgres.url}/postgres"
    folder = Path(tempfile.mkdtemp(prefix="headrace-small-"))
    folder.chmod(0o755)  # Not below the folders of pytest, which another session of it closes to the server.
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode != 0:
        folder.rmdir()
        pytest.skip("a tmpfs of its own cannot be mounted here")
    inner = folder / "space"
    inner.mkdir(mode=0o700)
    owner = postgres(url, "select pg_read_file('/proc/self/status')")[0][0]
    user = next(line.split()[1] for line in owner.splitlines() if line.startswith("Uid:"))
    subprocess.run(["chown", user, inner], check=True)
    postgres(url, f"create tablespace small location '{inner}'")
    postgres(url, "alter database postgres set default_tablespace = small")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)
    folder.rmdir()


@pytest.mark.invariant("D1", "D3")
def test_full_disk_of_the_destination(project: Path, own_postgres: PostgresServer, small_space: Path, way: str) -> None:
    url = f"{own_postgres.url}/postgres"
    settings = numbers(project, url, way)
    ballast = small_space / "ballast"
    postgres(url, "update numbers set note = note || repeat(md5(id::text), 50)")
    postgres(url, "vacuum full numbers")
    postgres(url, "checkpoint")
    space = os.statvfs(small_space)
    ballast.write_bytes(b"x" * (space.f_bavail * space.f_frsize - 500 * 1024))

    done = run(project, **settings)

    assert (done.returncode, "disk_full" in done.stderr) == (3, True), done.stderr
    assert "Traceback" not in done.stderr
    if postgres(url, "select to_regclass('landed') is not null") == [
        (True,)
    ]:  # A run that landed nothing leaves nothing.
        counted = postgres(url, "select count(*), count(distinct id) from landed")
        assert counted[0][0] == counted[0][1] < ROWS
    ballast.unlink()
    done = run(project, **settings)
    if done.returncode != 0:  # The first may have ended the run that was left; the next one completes its read set.
        done = run(project, **settings)
    assert done.returncode == 0, done.stderr
    exact(url)


@pytest.mark.invariant("D1")
def test_deadlock_of_a_merge_with_another_writer_is_tried_again(project: Path, postgres_database: str) -> None:
    settings = numbers(project, postgres_database, "merge")
    assert run(project, **settings).returncode == 0
    postgres(postgres_database, "update numbers set note = 'new ' || id")
    # A waiter looks for a deadlock once, after this time: long enough for the crossing update to come first.
    postgres(postgres_database, f"alter database {urlsplit(postgres_database).path[1:]} set deadlock_timeout = '3s'")
    outcome: list[Any] = []

    with dbapi.connect(postgres_database) as other, other.cursor() as cursor:
        cursor.execute("set deadlock_timeout = '60s'")
        cursor.execute("update landed set note = 'held' where id = 100")

        def merging() -> None:
            outcome.append(run(project, "--json", **settings))

        thread = threading.Thread(target=merging)
        thread.start()
        deadline = time.monotonic() + 30
        while not postgres(
            postgres_database,
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
        ):
            assert time.monotonic() < deadline, "the merge does not wait"
            time.sleep(0.05)
        cursor.execute(
            "update landed set note = 'crossed' where id = 1"
        )  # The merge holds it: now each waits for the other.
        other.commit()
        thread.join(timeout=60)

    [done] = outcome
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["retries"] >= 1
    exact(postgres_database)
