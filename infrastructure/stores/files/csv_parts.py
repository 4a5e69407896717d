"""The rows of CSV files as text that is read while it is written, in parts that follow one another."""

from collections.abc import Generator, Sequence

import pyarrow as pa

from domain.loads.checkpoint import Position
from domain.ports.batches import LARGE_BYTES, are_large

Rows = tuple[Position, pa.RecordBatch]
"""Rows, and where a read goes on after them."""


class TextPart:
    """One part; it reads on from where the one before it has ended, so that no byte is parsed twice."""

    def __init__(self, rows: "TextParts", max_rows: int, max_bytes: int) -> None:
        self._rows = rows
        self._most = (max_rows, max_bytes)
        self.num_rows = self.nbytes = 0
        self.position: Position = ()
        self.is_last = False
        self.error: Exception | None = None

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return pa.RecordBatchReader.from_batches(self._rows.schema, self._read()).__arrow_c_stream__(requested_schema)

    def _read(self) -> Generator[pa.RecordBatch]:
        max_rows, max_bytes = self._most
        try:
            while self.num_rows < max_rows and self.nbytes < max_bytes:
                found = self._rows.next(max_rows - self.num_rows)
                if found is None:
                    break
                self.position, batch = found
                self.num_rows, self.nbytes = self.num_rows + batch.num_rows, self.nbytes + batch.nbytes
                if are_large(batch):
                    max_bytes = min(max_bytes, LARGE_BYTES)
                yield batch
                del found, batch
            self.is_last = not self._rows.has_more()
        except Exception as error:  # Whoever pulls the rows would tell it in words of its own.
            self.error = error
            raise


class TextParts:
    """What is still to be read; blocking, and used by one thread at a time."""

    def __init__(self, names: Sequence[str], rows: Generator[Rows]) -> None:
        self.schema = pa.schema([(name, pa.string()) for name in names])
        self._rows = rows
        self._waiting: Rows | None = None

    def has_more(self) -> bool:
        """Say whether rows are left."""
        if self._waiting is None:
            self._waiting = next(self._rows, None)
        return self._waiting is not None

    def next(self, max_rows: int) -> Rows | None:
        """Give the next rows, at most so many; None at the end."""
        if not self.has_more() or self._waiting is None:
            return None
        (index, done), batch = self._waiting
        self._waiting = None
        if batch.num_rows > max_rows:
            self._waiting = ((index, done), batch.slice(max_rows))
            done, batch = str(int(done) - batch.num_rows + max_rows), batch.slice(0, max_rows)
        return (index, done), batch

    def close(self) -> None:
        """Leave the file."""
        self._rows.close()
