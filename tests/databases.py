"""Databases of the tests' own, and SQL to them by sessions that are kept: the driver reads every type when it connects."""

import atexit
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from adbc_driver_postgresql import dbapi

_kept: dict[str, dbapi.Connection] = {}


def postgres(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Run one statement, which commits by itself; its rows. It leaves nothing in its session but prepared plans."""
    kept = _kept.pop(url, None)
    if kept is not None:
        try:
            return _asked(url, kept, sql)
        except dbapi.Error as error:
            if error.sqlstate and not error.sqlstate.startswith(("57P", "08", "\0")):
                raise
    return _asked(url, dbapi.connect(url, autocommit=True), sql)  # The server or the database was gone meanwhile.


def leave(url: str) -> None:
    """Close the sessions that are kept with a database."""
    place = urlsplit(url)
    for kept in [kept for kept in _kept if (urlsplit(kept).port, urlsplit(kept).path) == (place.port, place.path)]:
        connection = _kept.pop(kept, None)
        if connection is not None:
            with suppress(dbapi.Error):
                connection.close()


@contextmanager
def new_database(server_url: str, *, like: str = "template1") -> Iterator[str]:
    """A database with a name of its own, as its URL, for as long as the block lasts."""
    name = f"t{uuid.uuid4().hex[:16]}"
    leave(f"{server_url}/{like}")
    # Files are copied with half the work of pages that are logged.
    postgres(f"{server_url}/postgres", f"CREATE DATABASE {name} TEMPLATE {like} STRATEGY file_copy")
    try:
        yield f"{server_url}/{name}"
    finally:
        leave(f"{server_url}/{name}")
        postgres(f"{server_url}/postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _asked(url: str, connection: dbapi.Connection, sql: str) -> list[tuple[Any, ...]]:
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
    except BaseException:
        with suppress(dbapi.Error):
            connection.close()
        raise
    if _kept.setdefault(url, connection) is not connection:  # Another thread has put one back.
        connection.close()
    return rows


@atexit.register
def _leave_all() -> None:
    for url in list(_kept):
        leave(url)
