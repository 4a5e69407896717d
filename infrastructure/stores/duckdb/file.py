"""The one connection to a DuckDB file. DuckDB gives a database up after it could not write, as on a full disk, and says
so to everybody until the file is opened anew: that is done here, as soon as nobody uses it any more.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from domain.errors import InvalidInputError, PlatformError, StoreRefusedError, StoreUnavailableError
from infrastructure.confinement import Confinement, is_held, real_path
from infrastructure.descriptors import need_descriptors
from infrastructure.memory_room import memory_bytes
from infrastructure.queries.duckdb_names import ALLOWED, IMPLIED
from infrastructure.room import lacks_room
from infrastructure.stores.duckdb.errors import lacks_memory, not_opened, translate
from infrastructure.stores.duckdb.wal import JOINING, WriteAheadLog, bytes_of, is_long, log_beside, log_bytes
from infrastructure.threads import OneThread

_MACHINE_SHARE = 3
"""The part of the machine's memory that putting a log into its file may take, if it needs more than there is else."""


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
        self.log: WriteAheadLog | None = None
        """What is known of the log of this opening; nothing of a database in memory."""
        self._is_short_of_memory = False
        """It was given up for want of memory: row groups are not joined any more."""
        self._is_to_settle = False
        self._refusal: str | None = None
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
        if not self._is_suspect and not (self.log is not None and self.log.has_failed):
            return connection
        # What lies in memory only would be gone with the connection.
        if self._options.path is not None and (cause := _given_up_by(connection)):
            if lacks_memory(cause):
                self._is_short_of_memory = self._is_to_settle = True
            if self._users:
                raise _given_up(cause)
            self._let_go()
            connection = await self._connected()
            if cause := _given_up_by(connection):  # Something that is about to be collected still holds the old one.
                raise _given_up(cause)
        self._is_suspect = False
        if self.log is not None:
            self.log.has_failed = False
        return connection

    async def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            thread = OneThread("duckdb-open")
            try:
                self._connection = await thread.call(self._connect)
                self.opening = secrets.token_hex(8)
                if (path := self._options.path) is not None:
                    limit_bytes = bytes_of(self._options.memory_limit)
                    self.log = WriteAheadLog(path, limit_bytes, may_join=not self._is_short_of_memory)
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
        need_descriptors()
        try:
            if options.path is not None:
                self._check(options.path)
                options.path.parent.mkdir(parents=True, exist_ok=True)
            if options.scratch is not None:
                config["temp_directory"] = str(options.scratch)
                if options.spill_limit is not None:
                    config["max_temp_directory_size"] = options.spill_limit
            if options.path is not None:
                config |= {JOINING: 0, "allowed_configs": [JOINING]}
                self._settle(options.path, config)
                self._look_at(options.path)
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
        for place in (path, log_beside(path)):
            if self._options.confinement is not None:
                self._options.confinement.check(place)
            if place.exists() and not place.is_file():
                what = "a folder" if place.is_dir() else "a device or a pipe"
                raise StoreRefusedError(
                    f"{place} is {what}; the DuckDB file has to be a file.", code="store.not_duckdb"
                )

    def _settle(self, path: Path, config: dict[str, Any]) -> None:
        """Put a log into its file before anybody works with it, where that may take more than there is then."""
        limit_bytes = bytes_of(self._options.memory_limit)
        # After a crash: what a log holds may take more than a look may.
        is_to_look = self._is_to_look() and log_beside(path).exists()
        if not (path.exists() and (self._is_to_settle or is_to_look or is_long(path, limit_bytes))):
            return
        if self._refusal is not None:
            raise _log_too_large(self._refusal)
        try:
            _checkpoint(path, config)
        except duckdb.Error as error:
            if not lacks_memory(error):
                raise
            self._settle_with_more(path, config, limit_bytes)
        self._is_to_settle = False

    def _settle_with_more(self, path: Path, config: dict[str, Any], limit_bytes: int) -> None:
        more = max(limit_bytes, memory_bytes() // _MACHINE_SHARE)
        try:
            _checkpoint(path, config | {"memory_limit": f"{more // 10**6}MB"})
        except duckdb.Error as error:
            if not lacks_memory(error):
                raise
            needed = 2 * max(more, log_bytes(path)) // 10**6
            # Not tried again: it takes much of the machine for seconds.
            self._refusal = (
                f"DuckDB cannot put the log of {path} into it with {more // 10**6:,} MB of memory, which it is given "
                f"for that: set HEADRACE_STORE__DUCKDB__MEMORY_LIMIT to {needed}MB or more where there is so much, and "
                "start again. Nothing that was committed is lost."
            )
            raise _log_too_large(self._refusal) from error

    def _is_to_look(self) -> bool:
        return self._look is not None and self._options.confinement is not None

    def _look_at(self, path: Path) -> None:
        if self._look is None or self._options.confinement is None or not path.exists():
            return
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


def _checkpoint(path: Path, config: dict[str, Any]) -> None:
    with closing(duckdb.connect(str(path), config=config)) as connection:
        connection.execute("CHECKPOINT")


def _log_too_large(sentence: str) -> StoreRefusedError:
    return StoreRefusedError(sentence, code="store.log_too_large")


def _given_up_by(connection: duckdb.DuckDBPyConnection) -> duckdb.Error | None:
    try:
        connection.execute("SELECT 1").fetchall()
    except duckdb.Error as error:
        return error
    return None


def _given_up(cause: duckdb.Error) -> PlatformError:
    if lacks_memory(cause):
        return translate(cause)
    return StoreUnavailableError(
        "DuckDB gave the file up after it could not write to it; it is opened anew once nobody uses it and there is "
        "room.",
        code="disk_full",
    )
