"""A CSV file as batches of text: decoded, whole to its last row, and refused by name where it is not what
it should be.
"""

import codecs
import csv
import io
import re
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from domain.errors import InvalidInputError, PlatformError
from infrastructure.descriptors import shortage
from infrastructure.memory_room import ROOM, Room
from infrastructure.stores.files.csv_faults import (
    END,
    FaultyTextError,
    bad_character,
    bad_structure,
    check_beginning,
    check_header,
    line_of_row,
    row_too_large,
    unreadable,
)
from infrastructure.stores.files.csv_lines import Lines, RowTooLongError
from infrastructure.stores.files.csv_pace import Pace
from infrastructure.stores.files.opening import FilePlace
from infrastructure.threads import while_wanted

# Small enough to stay in a core's cache between being split and being copied, which takes half the time of a large one.
BLOCK_BYTES = 512 * 1024
_LARGE_BLOCK_BYTES = 32 * 1024 * 1024
_LONGEST_ROW_BYTES = 64 * 1024 * 1024
_HEADER_BYTES = 1024 * 1024
_COPIES = 5
"""How often a block is in memory while it is parsed."""
_MOST_TO_UNPACK = {"zstd": 128 * 1024 * 1024}
"""What a few bytes may ask for, to be unpacked, beside what comes of them: a window. Others have small ones."""
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Dialect:
    """How the bytes of a file become rows of text."""

    delimiter: str = ","
    nulls: tuple[str, ...] = ("",)
    encoding: str = "utf-8"
    skip_rows: int = 0
    """Lines before the header."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Dialect":
        """Take it from the options of a source."""
        nulls = options.get("null_text", [""])
        return cls(
            delimiter=options.get("delimiter", ","),
            nulls=(nulls,) if isinstance(nulls, str) else tuple(nulls),
            encoding=options.get("encoding", "utf-8"),
            skip_rows=options.get("skip_rows", 0),
        )


class CsvFile:
    """One file; `name` is what people know it by. `longest_row_bytes` bounds a row that does not fit into a block."""

    def __init__(
        self, place: Path | FilePlace, name: str, dialect: Dialect, longest_row_bytes: int = _LONGEST_ROW_BYTES
    ) -> None:
        self._place = FilePlace.of(place)
        self.name = name
        self._dialect = dialect
        self._longest_row_bytes = longest_row_bytes

    def header(self) -> tuple[str, ...]:
        """Read the names of the columns.

        Raises:
            InvalidInputError: there is none, or a name is missing, doubled or not in the encoding.
        """
        with self._faults(0), _opened(self._place, self.name) as raw:
            check_beginning(raw.read(4), self.name, self._dialect.encoding)
        names = self._names(_HEADER_BYTES // 16)
        if names is None:
            names = self._names(_HEADER_BYTES)
        line = self._dialect.skip_rows + 1
        if names is None:
            raise InvalidInputError(f"{self.name}, line {line}: the header does not end.", code="file.malformed")
        check_header(names, self.name, line)
        return names

    def _names(self, size_bytes: int) -> tuple[str, ...] | None:
        """The header's values if it ends within so many bytes."""
        with self._faults(0), _opened(self._place, self.name) as raw:
            found = self._decoded(raw, b"\n").read(size_bytes)
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(found)
            csv.field_size_limit(sys.maxsize)
            lines = io.StringIO(text, newline="")
            rows = csv.reader(lines, delimiter=self._dialect.delimiter)
            names = next((tuple(row) for row in rows if row), ())
        return names if len(found) < size_bytes or lines.tell() < len(text) else None

    def _decoded(self, raw: pa.NativeFile, end: bytes) -> "_Decoded":
        return _Decoded(raw, self._dialect.encoding, end, self._dialect.skip_rows)

    def beginning(self, size_bytes: int) -> tuple[pa.Table, bool]:
        """Read about so many bytes of rows, and say whether they are all."""
        names = self.header()
        try:
            found = self._first(names, size_bytes)
        except _LongRowError:
            found = self._first_long(names, self._larger(size_bytes))
        rows = pa.Table.from_batches([found]) if found is not None else pa.table({name: [] for name in names})
        is_whole = bool(rows.num_rows) and _is_end(rows)
        return (rows.slice(0, rows.num_rows - 1) if is_whole else rows), is_whole

    def _first_long(self, names: tuple[str, ...], block_bytes: int | None) -> pa.RecordBatch | None:
        while block_bytes is not None:
            try:
                with ROOM.taken(_COPIES * block_bytes):
                    return self._first(names, block_bytes)
            except _LongRowError:
                block_bytes = self._larger(block_bytes)
        raise self._too_long()

    def _larger(self, block_bytes: int) -> int | None:
        """The next size of blocks for a row that does not fit into one; None where it may have no more."""
        if block_bytes >= self._longest_row_bytes:
            return None
        return min(_LARGE_BLOCK_BYTES if block_bytes < _LARGE_BLOCK_BYTES else sys.maxsize, self._longest_row_bytes)

    def _first(self, names: tuple[str, ...], size_bytes: int) -> pa.RecordBatch | None:
        with self._faults(len(names)), _opened(self._place, self.name, ROOM) as raw:
            return next((batch for batch in self._blocks(raw, names, size_bytes) if batch.num_rows), None)

    def batches(
        self, block_bytes: int = BLOCK_BYTES, room: Room | None = None, before_again: Callable[[], None] = lambda: None
    ) -> Generator[pa.RecordBatch]:
        """Read the rows, every value as text, about so many bytes at a time; what takes many more waits for `room`, and
        is read by opening the file once more.

        Raises:
            InvalidInputError: the file is not well formed, or not in the encoding, with the line.
        """
        names, done = self.header(), 0
        with ExitStack() as stack:
            while True:
                try:
                    for batch in self._parsed(names, done, block_bytes, room):
                        done += batch.num_rows
                        yield batch
                    return
                except _LongRowError:
                    larger = self._larger(block_bytes)
                    if larger is None:
                        stack.close()
                        raise self._too_long() from None
                    block_bytes = larger
                    before_again()
                    if room is not None:
                        stack.close()
                        stack.enter_context(room.taken(_COPIES * block_bytes))

    def line_of(self, row: int) -> int:
        """The line on which a row begins, the first row being 0; that is not its number where values hold
        line breaks.
        """
        with _opened(self._place, self.name, ROOM) as raw:
            text = io.TextIOWrapper(raw, self._dialect.encoding, errors="replace", newline="")
            lines = Lines(text, self._longest_row_bytes, self._dialect.delimiter)
            return line_of_row(lines, self._dialect.delimiter, row, self._dialect.skip_rows)

    def _parsed(
        self, names: tuple[str, ...], skip: int, block_bytes: int, room: Room | None
    ) -> Generator[pa.RecordBatch]:
        """Give the rows behind the first `skip`, one batch behind what is read, as the last row is not the file's."""
        waiting: pa.RecordBatch | None = None
        with self._faults(len(names)), _opened(self._place, self.name, room) as raw:
            for batch in self._blocks(raw, names, block_bytes):
                if not batch.num_rows:
                    continue
                if waiting is not None:
                    yield from _behind(waiting, skip)
                    skip = max(0, skip - waiting.num_rows)
                waiting = batch
            if waiting is None or not _is_end(waiting):
                raise FaultyTextError
        yield from _behind(waiting.slice(0, waiting.num_rows - 1), skip)

    def _blocks(self, raw: pa.NativeFile, names: tuple[str, ...], block_bytes: int) -> Generator[pa.RecordBatch]:
        end = self._dialect.delimiter.join([f'"{END}"'] * len(names))
        text = self._decoded(raw, f"\n{end}\n".encode())
        pace = text.pace = Pace() if block_bytes > BLOCK_BYTES else None
        with closing(text):
            batches = self._reader(text, names, block_bytes)
            yield from pace.each(batches) if pace is not None else batches

    def _reader(self, text: "_Decoded", names: tuple[str, ...], block_bytes: int) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            pa.PythonFile(text, mode="r"),
            read_options=pacsv.ReadOptions(block_size=block_bytes, use_threads=False),
            parse_options=pacsv.ParseOptions(delimiter=self._dialect.delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=list(self._dialect.nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    @contextmanager
    def _faults(self, width: int) -> Generator[None]:
        """Turn what goes wrong between the bytes and the rows into a sentence with a line."""
        try:
            yield
        except PlatformError:
            raise
        except (UnicodeError, FaultyTextError, csv.Error, pa.ArrowException, OSError) as error:
            if "straddling object" in str(error):
                raise _LongRowError from error
            raise shortage(error) or self._fault(width) or unreadable(self.name) from error

    def _fault(self, width: int) -> PlatformError | None:
        """Look for what is wrong from the file's beginning; None where it cannot be read at all."""
        encoding, delimiter = self._dialect.encoding, self._dialect.delimiter
        try:
            with _opened(self._place, self.name, ROOM) as raw:
                found = bad_character(raw, self.name, encoding)
            if found is not None:
                return found
            with _opened(self._place, self.name, ROOM) as raw:
                text = io.TextIOWrapper(raw, encoding, newline="")
                lines = Lines(text, self._longest_row_bytes, delimiter, width)
                return bad_structure(lines, self.name, delimiter, width, self._dialect.skip_rows)
        except RowTooLongError:
            return row_too_large(self.name, self._longest_row_bytes)
        except (pa.ArrowException, OSError):
            return None

    def _too_long(self) -> PlatformError:
        with ROOM.taken(2 * self._longest_row_bytes):
            line = self.line_of(sys.maxsize)
        return row_too_large(f"{self.name}, line {line}", self._longest_row_bytes)


class _LongRowError(Exception):
    """A row does not fit into a block."""


class _Decoded:
    """A stream of UTF-8, whatever the encoding of the file, without its first `skip` lines and with `end` behind it."""

    closed = False

    def __init__(self, raw: pa.NativeFile, encoding: str, end: bytes, skip: int) -> None:
        self._raw = raw
        is_utf8 = codecs.lookup(encoding).name == "utf-8"
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)()
        self._end = end
        self._skip = skip
        self._stop = while_wanted()
        self._skipped = b""
        self._waiting = b""
        self.pace: Pace | None = None

    def read(self, size: int) -> bytes:
        """Give up to `size` bytes; none at the end."""
        if self.pace is not None and not self.pace.wait(self._stop):
            return b""
        while len(self._waiting) < size and self._end:
            self._stop()  # Arrow asks from a thread of its own until it has a row, and empty lines may have no end.
            chunk: bytes = self._raw.read(size)
            is_last = not chunk
            if self._decoder is not None:
                chunk = self._decoder.decode(chunk, is_last).encode()
            if b"\0" in chunk:
                raise FaultyTextError
            if self._skip:
                chunk = self._behind_skipped(chunk, is_last)
            if is_last:
                chunk, self._end = chunk + self._end, b""
            self._waiting = self._waiting + chunk if self._waiting else chunk
        found, self._waiting = self._waiting[:size], self._waiting[size:]
        return found

    def _behind_skipped(self, chunk: bytes, is_last: bool) -> bytes:
        """What is left of a chunk behind the lines that are not wanted; a line ends in CR, LF or both."""
        text = self._skipped + chunk
        while self._skip:
            end = _LINE_END.search(text)
            if end is None or (end[0] == b"\r" and end.end() == len(text) and not is_last):
                self._skipped = text[-1:] if text.endswith(b"\r") else b""
                return b""
            text = text[end.end() :]
            self._skip -= 1
        return text

    def close(self) -> None:
        """Read no more, and leave the file to whoever opened it."""
        if self.pace is not None:
            self.pace.end()


@contextmanager
def _opened(place: FilePlace, name: str, room: Room | None = None) -> Generator[pa.NativeFile]:
    """What is inside of a file; who reads far into it does so in `room`, where it takes much to unpack."""
    with ExitStack() as stack:
        if room is not None:
            stack.enter_context(room.taken(_MOST_TO_UNPACK.get(place.compression or "", 0)))
        try:
            open_file = stack.enter_context(place.opened())
            raw = stack.enter_context(pa.input_stream(open_file, compression=place.compression))
        except OSError as error:
            raise unreadable(name, error) from error
        yield raw


def _is_end(rows: pa.RecordBatch | pa.Table) -> bool:
    return set(rows.slice(rows.num_rows - 1).to_pylist()[0].values()) == {END}


def _behind(batch: pa.RecordBatch, skip: int) -> Generator[pa.RecordBatch]:
    if skip < batch.num_rows:
        yield batch.slice(skip)
