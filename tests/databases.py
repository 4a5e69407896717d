"""Databases of the tests' own, and SQL to them by sessions that are kept.

The driver that the program has for rows reads the whole catalog when it connects, which takes ten times as long as all
else that a test asks: it is used here only for types that the other driver gives as something else.
"""

import asyncio
import atexit
import threading
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from adbc_driver_postgresql import dbapi

T = TypeVar("T")
_kept: dict[str, Any] = {}
_kept_for_types: dict[str, dbapi.Connection] = {}
_SAME = frozenset({"bool", "float8", "int2", "int4", "int8", "name", "text", "varchar"})
_loops: list[asyncio.AbstractEventLoop] = []
_thread = threading.Thread(target=lambda: _loops[0].run_forever(), name="databases", daemon=True)
_starting = threading.Lock()
_Rows = list[tuple[Any, ...]]


def postgres(url: str, sql: str) -> _Rows:
    """Run one statement, which commits by itself; its rows. It leaves nothing in its session but prepared plans."""
    rows = _wait(_asked(url, sql))
    return _with_types(url, sql) if rows is None else rows


def leave(url: str) -> None:
    """Close the sessions that are kept with a database."""
    place = urlsplit(url)

    def are_there(kept: dict[str, Any]) -> list[str]:
        return [other for other in kept if (urlsplit(other).port, urlsplit(other).path) == (place.port, place.path)]

    for name in are_there(_kept):
        if (session := _kept.pop(name, None)) is not None:
            _wait(_close(session))
    for name in are_there(_kept_for_types):
        if (connection := _kept_for_types.pop(name, None)) is not None:
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


async def _asked(url: str, sql: str) -> _Rows | None:
    """The rows of a statement; None, and it has not been run, where its types are for the other driver."""
    kept = _kept.pop(url, None)
    if kept is not None:
        try:
            return await _asked_in(url, kept, sql)
        except (OSError, asyncpg.InterfaceError):
            pass
        except asyncpg.PostgresError as error:
            if not (error.sqlstate or "").startswith(("57P", "08")):
                raise
    return await _asked_in(url, await asyncpg.connect(url), sql)  # The server or the database was gone meanwhile.


async def _asked_in(url: str, session: Any, sql: str) -> _Rows | None:
    try:
        statement = await session.prepare(sql)
        is_ours = all(found.type.name in _SAME for found in statement.get_attributes())
        rows = [tuple(row) for row in await statement.fetch()] if is_ours else None
    except BaseException:
        await _close(session)
        raise
    if _kept.setdefault(url, session) is not session:  # Another thread has put one back.
        await _close(session)
    return rows


async def _close(session: Any) -> None:
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await session.close(timeout=10)


def _with_types(url: str, sql: str) -> _Rows:
    kept = _kept_for_types.pop(url, None)
    if kept is not None:
        try:
            return _asked_with_types(url, kept, sql)
        except dbapi.Error as error:
            if error.sqlstate and not error.sqlstate.startswith(("57P", "08", "\0")):
                raise
    return _asked_with_types(url, dbapi.connect(url, autocommit=True), sql)


def _asked_with_types(url: str, connection: dbapi.Connection, sql: str) -> _Rows:
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()]
    except BaseException:
        with suppress(dbapi.Error):
            connection.close()
        raise
    if _kept_for_types.setdefault(url, connection) is not connection:
        connection.close()
    return rows


def _wait(asked: Coroutine[Any, Any, T]) -> T:
    with _starting:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            _thread.start()
    return asyncio.run_coroutine_threadsafe(asked, _loops[0]).result()


@atexit.register
def _leave_all() -> None:
    for url in [*_kept, *_kept_for_types]:
        leave(url)
    if _loops:
        _loops[0].call_soon_threadsafe(_loops[0].stop)
        _thread.join()
