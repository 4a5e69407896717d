"""Where no more files and connections may be opened, whoever needs one is told so and tries again; nothing is said of
what could not be looked at.
"""

import errno
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy.exc import OperationalError

from domain.errors import PlatformError
from infrastructure.confinement import Confinement
from infrastructure.metadata.records_errors import records_error
from infrastructure.queries.parquet_footers import look_at_footer
from infrastructure.secrets.files import FileSecretProvider
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from infrastructure.stores.files.csv_faults import unreadable
from infrastructure.stores.files.matches import matches
from infrastructure.stores.files.opening import FilePlace
from infrastructure.stores.postgres.errors import not_connected, translate


@contextmanager
def short(left: int = 0) -> Iterator[None]:
    """So many may be opened meanwhile."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (before, hard))
        opened: list[int] = []
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for _ in range(left):
            os.close(opened.pop())
        for each in opened:
            stack.callback(os.close, each)
        yield


def of_records(path: Path) -> PlatformError:
    with pytest.raises(sqlite3.OperationalError) as raised, closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    return records_error(OperationalError("", {}, raised.value))


def test_records_that_cannot_be_opened_just_now_are_not_told_to_be_a_folder(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")

    with short(left=1):  # The file opens, and the log beside it does not.
        now = of_records(tmp_path / "records.db")

    assert (now.code, now.retryable) == ("process.descriptors", True)
    found = of_records(tmp_path)
    assert (found.code, found.retryable) == ("records.not_openable", False)


def csv(folder: Path) -> Any:
    try:
        with FilePlace.of(folder / "a.csv").opened():
            return True
    except OSError as error:
        raise unreadable("a.csv", error) from error


@pytest.mark.parametrize(
    ("look", "found"),
    [
        (csv, True),
        (lambda folder: len(matches(folder, "*.csv", Confinement(folder, (folder,)))), 1),
        (lambda folder: look_at_footer(str(folder / "a.csv")), False),
        (lambda folder: FileSecretProvider(folder)._read("a.csv").reveal(), "x"),
        (lambda folder: DuckDBFile(DuckDBOptions(folder / "a.duckdb"))._connect().close(), None),
    ],
    ids=["csv", "folder", "footer", "secret", "duckdb"],
)
def test_what_cannot_be_opened_just_now_is_tried_again(look: Callable[[Path], Any], found: Any, tmp_path: Path) -> None:
    """A folder that may not be listed is no empty one, a secret that may not be read is not missing; and DuckDB ends
    the process where it can open nothing at its start.
    """
    (tmp_path / "a.csv").write_text("x\n")
    duckdb.connect(":memory:").close()  # What is opened once for all.

    with short(), pytest.raises(PlatformError) as raised:
        look(tmp_path)

    assert (raised.value.code, raised.value.retryable) == ("process.descriptors", True)
    assert "ulimit -n" in raised.value.message
    assert look(tmp_path) == found


WHERE: dict[str, Any] = {"place": "db.example:5432", "user": "me", "database": "d", "sslmode": "require"}


@pytest.mark.parametrize(
    "said",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError("Multiple exceptions: [Errno 24] Too many open files, [Errno 24] Too many open files"),
        RuntimeError('could not open certificate file "ca.crt": Too many open files'),
    ],
    ids=["process", "machine", "asyncio", "libpq"],
)
def test_a_database_to_which_no_connection_may_be_opened_just_now_is_tried_again(said: Exception) -> None:
    for told in (not_connected(said, **WHERE), translate(said)):
        assert (told.code, told.retryable) == ("process.descriptors", True)
    of_server = RuntimeError("FATAL:  could not open file: Too many open files in system")
    assert not_connected(of_server, **WHERE).code == "store.unavailable"


def test_a_host_is_not_told_to_be_unknown_while_no_resolver_can_be_asked() -> None:
    said = OSError(-2, "Name or service not known")
    with short():
        told = not_connected(said, **WHERE)
    assert (told.code, told.retryable) == ("process.descriptors", True)
    assert not_connected(said, **WHERE).code == "store.host_unknown"
