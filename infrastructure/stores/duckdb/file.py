"""The one connection to a DuckDB file. DuckDB gives a database up after it could not write, as on a full disk, and says
so to everybody until the file is opened anew: that is done here, as soon as nobody uses it any more.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from domain.errors import InvalidInputError, StoreRefusedError, StoreUnavailableError
from infrastructure.confinement import Confinement, is_held, real_path
from infrastructure.queries.duckdb_names import ALLOWED, IMPLIED
from infrastructure.room import lacks_room
from infrastructure.stores.duckdb.errors import not_opened
from infrastructure.threads import OneThread


@dataclass(frozen=True)
class DuckDBOptions:
    """Bounds of the embedded engine. `path` None keeps everything in memory."""

    path: Path | None
    memory_limit: str = "1GB"
    threads: int = 2
    scratch: Path | None = None
    spill_limit: str | None = None
    """How much may lie in `scratch`; what is left of the disk where nothing is said."""
    confinement: Confinement | None = None
    """What else says whether the file may be opened: nothing does of the settings' own."""


class DuckDBFile:
    """Opens, lends and closes the connection; it is looked at again after each use that ended in an error."""

    def __init__(self, options: DuckDBOptions, look: Callable[[str], None] | None = None) -> None:
        """Of a document's file, `look` says whether what it holds may be planned; blocking."""
        self._options = options
        self._look = look
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.opening = ""
        """Tells one opening of the file from another."""
        self._guard = asyncio.Lock()
        self._is_open = False
        self._is_suspect = False
        self._users = 0

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailableError, StoreRefusedError: it cannot be opened.
        """
        async with self._guard:
            self._is_open = True
            await self._connected()

    async def close(self) -> None:
        """Close the connection; harmless when there is none."""
        self._is_open = False
        self._let_go()

    def lacks_room(self) -> bool:
        """Say whether nothing more can be written where the file lies."""
        return self._options.path is not None and lacks_room(self._options.path)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[duckdb.DuckDBPyConnection]:
        """Lend the connection; who borrows it works with a cursor and closes that.

        Raises:
            StoreUnavailableError: the file is not open, or was given up and cannot be opened anew yet.
        """
        async with self._guard:
            connection = await self._usable()
            self._users += 1
        try:
            yield connection
        except BaseException:
            self._is_suspect = True
            raise
        finally:
            self._users -= 1

    async def _usable(self) -> duckdb.DuckDBPyConnection:
        if not self._is_open:
            raise StoreUnavailableError("The DuckDB store is not open.")
        connection = await self._connected()
        if not self._is_suspect:
            return connection
        # What lies in memory only would be gone with the connection.
        if self._options.path is not None and _is_given_up(connection):
            if self._users:
                raise _given_up()
            self._let_go()
            connection = await self._connected()
            if _is_given_up(connection):  # Something that is about to be collected still holds the old one.
                raise _given_up()
        self._is_suspect = False
        return connection

    async def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            thread = OneThread("duckdb-open")
            try:
                self._connection = await thread.call(self._connect)
                self.opening = secrets.token_hex(8)
            finally:
                thread.close()
        return self._connection

    def _connect(self) -> duckdb.DuckDBPyConnection:
        options = self._options
        target = ":memory:" if options.path is None else str(options.path)
        config: dict[str, Any] = {
            "memory_limit": options.memory_limit,
            "threads": options.threads,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            if options.path is not None:
                self._check(options.path)
                options.path.parent.mkdir(parents=True, exist_ok=True)
            if options.scratch is not None:
                config["temp_directory"] = str(options.scratch)
                if options.spill_limit is not None:
                    config["max_temp_directory_size"] = options.spill_limit
            self._look_at(config)
            connection = duckdb.connect(target, config=config)
            try:
                self._check_opened()
                _refuse_disguised(connection)
                connection.execute("SET GLOBAL TimeZone = 'UTC'")
                connection.execute("SET enable_external_access = false")
                connection.execute("SET lock_configuration = true")
            except BaseException:
                connection.close()  # Else the file stayed open for as long as somebody keeps the error.
                raise
        except (duckdb.Error, OSError) as error:
            raise not_opened(error, options.path) from error
        return connection

    def _check(self, path: Path) -> None:
        """Refuse a file, or the log beside it, that may not be reached, or that is no file: opening a pipe would never
        end.
        """
        for place in (path, path.with_name(f"{path.name}.wal")):
            if self._options.confinement is not None:
                self._options.confinement.check(place)
            if place.exists() and not place.is_file():
                what = "a folder" if place.is_dir() else "a device or a pipe"
                raise StoreRefusedError(
                    f"{place} is {what}; the DuckDB file has to be a file.", code="store.not_duckdb"
                )

    def _look_at(self, config: dict[str, Any]) -> None:
        path = self._options.path
        if self._look is None or self._options.confinement is None or path is None or not path.exists():
            return
        if path.with_name(f"{path.name}.wal").exists():
            # After a crash: what a log holds may take more than a look may.
            duckdb.connect(str(path), config=config).close()
        try:
            self._look(str(path.absolute()))
        except InvalidInputError as error:
            raise StoreRefusedError(
                "A view of the DuckDB file, or a table with generated columns, takes too much to plan: make it of "
                "fewer others.",
                code="store.views_too_large",
            ) from error

    def _check_opened(self) -> None:
        """Look again: a link may have come between the look and the opening, and gone after it."""
        path = self._options.path
        if path is None:
            return
        self._check(path)
        if self._options.confinement is None:
            return
        real = real_path(path)
        self._options.confinement.check(real)
        if is_held(real) is False:
            raise StoreUnavailableError("The DuckDB file was exchanged while it was opened; try again.")

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(duckdb.Error):  # A database that was given up cannot write what it would on closing.
                connection.close()


def _refuse_disguised(connection: duckdb.DuckDBPyConnection) -> None:
    """Refuse a file with functions under the names of built-in ones: DuckDB would take them for those, in our
    statements too.
    """
    found = connection.execute("SELECT function_name, internal FROM system.main.duckdb_functions()").fetchall()
    built_in = {name.lower() for name, is_internal in found if is_internal} | IMPLIED | ALLOWED
    for name, is_internal in found:
        if not is_internal and name.lower() in built_in:
            raise StoreRefusedError(
                f"The DuckDB file has a macro named {name.lower()}, which would be taken for DuckDB's own function: "
                "drop it, or make it again under another name.",
                code="store.own_functions",
            )


def _is_given_up(connection: duckdb.DuckDBPyConnection) -> bool:
    try:
        connection.execute("SELECT 1").fetchall()
    except duckdb.Error:
        return True
    return False


def _given_up() -> StoreUnavailableError:
    return StoreUnavailableError(
        "DuckDB gave the file up after it could not write to it; it is opened anew once nobody uses it and there is "
        "room.",
        code="disk_full",
    )
