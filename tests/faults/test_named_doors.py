"""What keeps a run from its home, records, stores or secrets has a code of its own, at once where trying again cannot
help.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest

from domain.errors import PlatformError, UnavailableError
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import SourceSpec
from domain.runs.run import RunState
from domain.stores.table import TableName
from entrypoints.cli.errors import exit_code
from entrypoints.http.errors import status_of
from infrastructure.stores.duckdb.errors import not_opened
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from tests.e2e.api import headrace
from tests.e2e.inside import inside
from tests.e2e.projects import write

LANDING = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
PIPELINE = (
    "version: 1\npipeline: people\nsource: {connection: landing, path: people.csv}\ndestination: {%s}\n"
    "retry: {attempts: 5, backoff: 30s}\n"
)


def home_is_a_file(home: Path) -> None:
    home.write_text("x")


def parent_is_a_file(home: Path) -> None:
    home.parent.rmdir()
    home.parent.write_text("x")


def parent_cannot_be_written(home: Path) -> None:
    home.parent.rmdir()
    home.parent.symlink_to("/proc")


def records_are_text(home: Path) -> None:
    write(home, "records.db", "no database, but a text that is long enough to be taken for one " * 20)


def records_are_a_folder(home: Path) -> None:
    (home / "records.db").mkdir(parents=True)


def records_are_newer(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "records.db") as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.execute("insert into alembic_version values ('9999')")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (home_is_a_file, "home.not_a_folder"),
        (parent_is_a_file, "home.not_a_folder"),
        (parent_cannot_be_written, "home.not_creatable"),
        (records_are_text, "records.not_sqlite"),
        (records_are_a_folder, "records.not_openable"),
        (records_are_newer, "records.ahead"),
    ],
)
async def test_home_or_records_that_cannot_be_used_are_told_at_the_start(
    spoil: Callable[[Path], None], code: str, project: Path
) -> None:
    home = project / "parent" / "home"
    home.parent.mkdir()
    spoil(home)

    with pytest.raises(PlatformError) as caught:
        async with inside(project, HEADRACE_HOME=str(home)):
            pass

    error = caught.value
    assert (error.code, error.retryable, exit_code(error), status_of(error)) == (code, False, 3, 503), error.message


async def test_records_that_are_damaged_while_they_are_open_are_told(project: Path) -> None:
    async with inside(project) as installation:
        await installation.put(LANDING)
    records = project / ".headrace/records.db"
    size = records.stat().st_size
    with records.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    for beside in ("records.db-wal", "records.db-shm"):
        (project / ".headrace" / beside).unlink(missing_ok=True)

    with pytest.raises(UnavailableError) as caught:
        async with inside(project) as installation:
            await installation.put(LANDING)

    assert (caught.value.code, caught.value.retryable) == ("records.corrupt", False)


async def test_full_disk_of_the_home_is_named(project: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a tmpfs of its own cannot be mounted here")
    try:
        with pytest.raises(UnavailableError) as caught:
            async with inside(project, HEADRACE_HOME=str(small / "home")):
                pass
    finally:
        subprocess.run(["umount", "-l", small], check=False)

    assert caught.value.code == "disk_full"


def test_command_line_tells_of_a_home_in_one_sentence(project: Path) -> None:
    (project / ".headrace").write_text("x")

    said = headrace(project, "runs", "list", "--json")

    assert (said.returncode, "home.not_a_folder" in said.stderr) == (3, True), said.stderr
    assert "Traceback" not in said.stderr


def text_file(path: Path) -> None:
    path.write_text("a text " * 1000)


def empty_file(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def damaged(path: Path) -> None:
    made(path)
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)


def cut(path: Path) -> None:
    made(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (id int)")
    connection.close()


def made(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table t as select * from range(50000)")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (text_file, "store.not_duckdb"),
        (empty_file, "store.not_duckdb"),
        (folder, "store.not_duckdb"),
        (of_sqlite, "store.not_duckdb"),
        (damaged, "store.corrupt"),
        (cut, "store.corrupt"),
    ],
)
async def test_file_that_is_no_duckdb_ends_the_run_at_once(
    spoil: Callable[[Path], None], code: str, project: Path
) -> None:
    (project / "data/people.csv").write_text("id,name\n1,a\n")
    async with inside(project) as installation:
        spoil(project / ".headrace/data.duckdb")
        await installation.put(LANDING)
        await installation.put(PIPELINE % "table: people")

        run = await installation.ran("people")

    assert run.error is not None
    assert (run.state, run.error.code, run.retries) == (RunState.FAILED, code, 0), run.error
    assert run.error.unavailable


@pytest.mark.parametrize("name", ["data.duckdb", "link.duckdb", "../data/data.duckdb"])
@pytest.mark.parametrize("threads", [2, 3])
async def test_file_that_another_store_of_the_process_has_open_is_told_as_that(
    threads: int, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    made(folder / "data.duckdb")
    (folder / "link.duckdb").symlink_to(folder / "data.duckdb")
    first = DuckDBDataStore(DuckDBOptions(folder / "data.duckdb"))
    second = DuckDBDataStore(DuckDBOptions(folder / name, threads=threads))
    await first.open()
    try:
        with pytest.raises(PlatformError) as caught:
            await second.open()
        assert (caught.value.code, caught.value.retryable) == ("store.in_use", False)
        assert "is open in this process already, for another connection" in str(caught.value)
        assert await first.count(SourceSpec(table=TableName("t")), SourcePlan((), (), True)) == 50000
    finally:
        await first.close()
    await second.open()
    await second.close()


def test_file_of_a_newer_duckdb_is_told_as_that(tmp_path: Path) -> None:
    said = duckdb.IOException(
        "IO Error: Trying to read a database file with version number 99, but we can only read versions between 64 "
        "and 68."
    )

    error = not_opened(said, tmp_path / "data.duckdb")

    assert (error.code, error.retryable) == ("store.newer", False)


def address(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    options = {
        "host": parts.hostname,
        "port": str(parts.port),
        "database": parts.path[1:],
        "user": "postgres",
        "sslmode": "disable",
    } | changes
    inline = ", ".join(f"{name}: {value}" for name, value in options.items())
    return f"version: 1\nconnection: there\nkind: postgres\noptions: {{{inline}}}\n"


@pytest.mark.parametrize(
    ("changes", "secret", "code"),
    [
        ({"database": "nothing"}, "", "store.database_missing"),
        ({"user": "nobody"}, "", "store.sign_in"),
        ({"host": "no-such-host.invalid"}, "", "store.host_unknown"),
        ({"sslmode": "require"}, "", "store.tls"),
        ({}, "secrets: {password: 'env:SECRET_THAT_IS_UNSET'}\n", "secret.not_found"),
        ({}, "secrets: {password: 'file:nowhere'}\n", "secret.not_found"),
    ],
)
async def test_postgres_that_turns_us_away_ends_the_run_at_once(
    changes: dict[str, str], secret: str, code: str, project: Path, postgres_server_url: str
) -> None:
    (project / "data/people.csv").write_text("id,name\n1,a\n")
    async with inside(project) as installation:
        await installation.put(LANDING)
        await installation.put(address(f"{postgres_server_url}/postgres", **changes) + secret)
        await installation.put(PIPELINE % "connection: there, table: people")

        run = await installation.ran("people")

    assert run.error is not None
    assert (run.state, run.error.code, run.retries) == (RunState.FAILED, code, 0), run.error


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"DB_NAME": "nothing"}, "records.database_missing"),
        ({"DB_USER": "nobody"}, "records.sign_in"),
        ({"DB_HOST": "no-such-host.invalid"}, "records.host_unknown"),
        ({"DB_PORT": "1"}, "records.unavailable"),
    ],
)
async def test_records_on_a_postgres_that_turns_us_away_are_told_at_the_start(
    changes: dict[str, str], code: str, project: Path, postgres_server_url: str
) -> None:
    there = urlsplit(postgres_server_url)
    settings = {
        "DB_HOST": there.hostname or "",
        "DB_PORT": str(there.port),
        "DB_NAME": "postgres",
        "DB_USER": "postgres",
    }

    with pytest.raises(PlatformError) as caught:
        async with inside(project, HEADRACE_METADATA__KIND="postgres", **(settings | changes)):
            pass

    assert (caught.value.code, caught.value.retryable) == (code, code == "records.unavailable"), caught.value.message


async def test_folder_of_files_that_is_missing_ends_the_run_at_once(project: Path) -> None:
    shutil.rmtree(project / "data")
    async with inside(project) as installation:
        await installation.put(LANDING)
        await installation.put(PIPELINE % "table: people")

        run = await installation.ran("people")

    assert run.error is not None
    assert (run.error.code, run.retries) == ("source.folder_missing", 0)


async def test_cursor_on_a_table_that_is_not_there_says_so(project: Path, postgres_database: str) -> None:
    """Before it asks for a key that the table cannot have."""
    async with inside(project) as installation:
        await installation.put(address(postgres_database))
        for name, source in {
            "elsewhere": "connection: there, table: nowhere",
            "here": "table: nowhere",
            "keyed": "connection: there, table: nowhere, key: [id]",
        }.items():
            await installation.pipeline(name, source + ", cursor: {column: at}", f"table: {name}")
            run = await installation.ran(name)
            assert run.error is not None
            assert (run.error.code, "does not exist" in run.error.message) == ("table.not_found", True), run.error
