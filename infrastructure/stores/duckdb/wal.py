"""The log of a DuckDB file, which is put into the file by checkpoints, and what those may unpack.

A checkpoint has up to 2,048 rows of a table in memory at once, and joins row groups of few rows to larger ones: of rows
of a megabyte that takes more than `memory_limit`, and DuckDB gives up a file whose checkpoint fails. So row groups with
such rows stay as they were written, and the log, which is as large as the rows are unpacked, is kept short.
"""

from pathlib import Path

import duckdb

from infrastructure.stores.duckdb.row_size import VECTOR_ROWS, most_unpacked

JOINING = "max_vacuum_tasks"
"""DuckDB's setting: how many row groups a checkpoint may join, 0 for none. Nothing is to be joined before it is known
what the file holds, its log too, so a file is opened with 0.
"""
_JOINS = 100
_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}
_JOINED_SHARE = 4
"""The part of the memory limit that rows which are joined may take: DuckDB has them about twice more."""
_LOG_SHARE = 8
_WORTH_JOINING = 1024 * 1024
"""So much is written before anybody looks what the tables hold, which takes some milliseconds for each."""


def bytes_of(limit: str) -> int:
    """How many bytes a memory limit is, as the settings spell it."""
    number = limit.rstrip("MGiB")
    return int(float(number) * _UNITS[limit[len(number) :]])


def log_beside(path: Path) -> Path:
    """Where the log of a file lies."""
    return path.with_name(f"{path.name}.wal")


def log_bytes(path: Path) -> int:
    """How long the log is; 0 where there is none."""
    try:
        return log_beside(path).stat().st_size
    except OSError:
        return 0


def is_long(path: Path, limit_bytes: int) -> bool:
    """Whether a checkpoint should not wait until DuckDB makes one."""
    return log_bytes(path) > limit_bytes // _LOG_SHARE


class WriteAheadLog:
    """What is known of an open file's log; used under the file's write lock."""

    def __init__(self, path: Path, limit_bytes: int, *, may_join: bool) -> None:
        """Unless it `may_join`, row groups stay as they are."""
        self.has_failed = False
        """A checkpoint failed: the file is to be looked at before it is used again."""
        self._path = path
        self._limit_bytes = limit_bytes
        self._may_join = may_join
        self._is_known = False
        self._joins = False
        self._wide_bytes = 0

    def written(self, cursor: duckdb.DuckDBPyConnection, rows: int, nbytes: int) -> None:
        """Note rows that a transaction has written, before its COMMIT, which may make a checkpoint."""
        unpacked = nbytes * (VECTOR_ROWS // max(rows, 1) + 2)
        if not self._may_join or unpacked <= self._limit_bytes // _JOINED_SHARE:
            return
        self._wide_bytes += nbytes
        if self._wide_bytes > self._limit_bytes // _LOG_SHARE:
            self._may_join = False
            self._set_joins(cursor, False)

    def written_unseen(self) -> None:
        """Note that the file has written rows by itself: their sizes are looked at once they are committed."""
        self._is_known = False

    def shorten(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """After a COMMIT: put the log into the file if it is long. What keeps that from being done now, as somebody's
        transaction, is met at the next.
        """
        try:
            if self._may_join and not self._is_known and log_bytes(self._path) > _WORTH_JOINING:
                self._may_join = most_unpacked(cursor) <= self._limit_bytes // _JOINED_SHARE
                self._is_known = True
                self._set_joins(cursor, self._may_join)
            if is_long(self._path, self._limit_bytes):
                # DuckDB's own is put off by every reader while checkpoint rows are updated.
                cursor.execute("CHECKPOINT")
        except duckdb.TransactionException:
            pass
        except duckdb.Error:
            self.has_failed = True  # What was committed is so.

    def _set_joins(self, cursor: duckdb.DuckDBPyConnection, joins: bool) -> None:
        if joins != self._joins:
            cursor.execute(f"SET GLOBAL {JOINING} = {_JOINS if joins else 0:d}")
            self._joins = joins
