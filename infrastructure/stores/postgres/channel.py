"""One ADBC connection and what it is asked, so that no answer is larger than it may be and none is waited
for in vain.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa

from domain.errors import PlatformError, StoreRefusedError
from infrastructure.stores.postgres.connection import PostgresAddress, connect
from infrastructure.stores.postgres.errors import translate
from infrastructure.stores.postgres.watching import ANSWER_BYTES, Line

# The driver gathers this much before it hands on a batch; its default is four times as much.
_BATCH_BYTES_OPTION = "adbc.postgresql.batch_size_hint_bytes"
_USE_COPY_OPTION, _BATCH_BYTES = "adbc.postgresql.use_copy", 4 * 1024 * 1024
# What a row has around its values, and what the kernel takes in before it is asked for.
_ROOM_BYTES = 32 * 2**20
_STOPPING_SECONDS, _CLOSING_SECONDS = 15.0, 5.0
# Each value of a row takes some fifty bytes here, however short it is there.
_MOST_VALUES = 1_000_000


class Channel:
    """A connection under a name. Errors of the driver become ours."""

    def __init__(self, address: PostgresAddress, name: str) -> None:
        self._line = Line(address.place)
        self._connection = connect(address, name, self._line)
        self.cursor = self._connection.cursor()
        self.place = address.place

    def ask(
        self, sql: str, parameters: Sequence[Any] = (), *, seconds: float | None = None, writes: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run a statement of ours; its rows. Only where nothing is to be done and nobody waited for, in so many
        seconds.
        """
        with self._answered(seconds=seconds, writes=writes):
            self.cursor.execute(sql, tuple(parameters) or None)
            # Of a reader that is iterated over, what the server says of a failure comes without its SQLSTATE.
            answer = self.cursor.fetch_arrow_table()
        if answer.num_rows * answer.num_columns > _MOST_VALUES:
            raise StoreRefusedError(
                f"{self.place} answered one question with more than {_MOST_VALUES:,} values, which is more than it "
                "may.",
                code="store.answer_too_large",
            )
        # Column by column, as the driver takes ten times as long for a row.
        return list(zip(*(column.to_pylist() for column in answer.columns), strict=True))

    def stream(self, sql: str, most: int) -> Generator[pa.RecordBatch]:
        """Stream a query's result by COPY, of which no row has more than so many bytes; ending early
        cancels the query.
        """
        reader = None
        is_done = False
        most += _BATCH_BYTES + _ROOM_BYTES
        try:
            with self._answered(most):
                self.cursor.adbc_statement.set_options(**{_BATCH_BYTES_OPTION: str(_BATCH_BYTES)})
                self.cursor.execute(sql)
                reader = self.cursor.fetch_record_batch()
            while True:
                with self._answered(most):
                    batch = next(reader, None)
                if batch is None:
                    break
                yield batch
            is_done = True
        finally:
            if reader is not None and not is_done:
                self.cancel()
                with suppress(PlatformError), self._line.answering(seconds=_STOPPING_SECONDS):
                    reader.close()

    def schema(self, sql: str) -> pa.Schema:
        """The columns of a query's result, of whatever types: what cannot be sent as bytes is not sent."""
        with self._answered(), self.uncopied():
            self.cursor.execute(sql)
            with self.cursor.fetch_record_batch() as reader:
                return reader.schema

    def ingest(self, table: str, rows: pa.Table, **where: Any) -> None:
        """Append rows to a table by COPY."""
        with self._answered():
            self.cursor.adbc_ingest(table, rows, mode="append", **where)

    def changed(self, sql: str) -> int:
        """Run a statement that has no rows; how many it has changed."""
        with self._answered():
            self.cursor.adbc_statement.set_sql_query(sql)
            return int(self.cursor.adbc_statement.execute_update())

    @contextmanager
    def uncopied(self) -> Iterator[None]:
        """Let the driver not wrap statements in COPY."""
        self.cursor.adbc_statement.set_options(**{_USE_COPY_OPTION: "false"})
        try:
            yield
        finally:
            self.cursor.adbc_statement.set_options(**{_USE_COPY_OPTION: "true"})

    def cancel(self) -> None:
        """Ask the server to stop what it does, from any thread; it need not listen."""
        with suppress(Exception), self._line.canceling():  # What cannot even be asked is told by what waits for it.
            self.cursor.adbc_cancel()

    def hang_up(self) -> None:
        """Free the thread that waits for the server, which nothing else does any more."""
        self._line.hang_up()

    def close(self) -> None:
        for closable in (self.cursor, self._connection):
            with suppress(Exception), self._line.answering(seconds=_CLOSING_SECONDS):  # It cannot be closed any better.
                closable.close()
        self._line.close()

    @contextmanager
    def _answered(
        self, most: int = ANSWER_BYTES, seconds: float | None = None, *, writes: bool = False
    ) -> Iterator[None]:
        try:
            with self._line.answering(most, seconds):
                yield
        except PlatformError:
            raise
        except Exception as error:
            raise translate(error, writes=writes) from error
