"""What reading a row group of Parquet takes in memory, told by the headers of its pages before any of them is unpacked.

A few bytes can stand for gigabytes: a page that is unpacked to more than there is, one text of a dictionary for each of a million
rows, one row with a billion values. So pages are bounded, rows are read so many at a time that they fit, and what neither
bounds is refused.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import InvalidInputError

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_OFFSET_BYTES = 4
_LENGTH = struct.Struct("<I")
_DICTIONARY, _DATA, _DATA_V2 = 2, 0, 3
_HEADER_BYTES = (512, 64 * 1024, 4 * 1024 * 1024)
"""How much of a file is looked at for one header: most are short, and the longest hold a value of statistics."""


@dataclass(frozen=True)
class FileLimits:
    """How much a file may be unpacked to where reading it in parts does not bound it."""

    page_bytes: int = 256 * 1024 * 1024
    ratio: int = 1000


@dataclass(frozen=True)
class _Page:
    kind: int
    unpacked_bytes: int
    packed_bytes: int
    values: int


@dataclass(frozen=True)
class _Chunk:
    """A column of a row group, with the place of its dictionary if it has one."""

    values: int
    dictionary: tuple[int, _Page] | None
    largest_page_bytes: int


def rows_at_a_time(
    parquet: pq.ParquetFile, path: Path, name: str, group: int, size: tuple[int, int], limits: FileLimits
) -> int:
    """How many rows of a row group are read at a time, so that no more than about so many rows and bytes are in memory.

    Raises:
        InvalidInputError: nothing bounds what reading it takes, or its pages are not what its footer says.
    """
    rows, most_bytes = size
    metadata = parquet.metadata.row_group(group)
    if not metadata.num_rows:
        return rows
    row_bytes = 0.0
    with path.open("rb") as file:
        for place in range(metadata.num_columns):
            column, kind = metadata.column(place), parquet.schema.column(place)
            chunk = _looked_at(file.fileno(), column, name, limits)
            width = _WIDTHS.get(kind.physical_type) or (kind.length if kind.physical_type != "BYTE_ARRAY" else 0)
            if not width:
                width = _OFFSET_BYTES
                if chunk.dictionary is not None and chunk.dictionary[1].unpacked_bytes * rows > most_bytes:
                    width += _longest(file.fileno(), *chunk.dictionary, column.compression)
                else:
                    row_bytes += chunk.largest_page_bytes / metadata.num_rows
            if kind.max_repetition_level:
                _check_ratio(chunk.values * width, column.total_compressed_size, name, limits)
            row_bytes += chunk.values / metadata.num_rows * width
    return int(max(1, min(rows, most_bytes / max(row_bytes, 1))))


def _looked_at(file: int, column: pq.ColumnChunkMetaData, name: str, limits: FileLimits) -> _Chunk:
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset and column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    values, largest, dictionary = 0, 0, None
    for place, page in _pages(file, start, start + column.total_compressed_size, column.num_values, name):
        if page.unpacked_bytes > limits.page_bytes:
            raise InvalidInputError(
                f"{name}: a page of the column {column.path_in_schema} is unpacked to {page.unpacked_bytes:,} bytes, and may be "
                f"to {limits.page_bytes:,} (HEADRACE_LIMITS__PAGE_BYTES); write the file with smaller pages.",
                code="file.page_too_large",
            )
        if page.kind == _DICTIONARY:
            dictionary = (place, page)
        else:
            values, largest = values + page.values, max(largest, page.unpacked_bytes)
    if values > column.num_values:
        raise _malformed(name)
    return _Chunk(column.num_values, dictionary, largest)


def _longest(file: int, place: int, page: _Page, compression: str) -> int:
    """The longest text of a dictionary, or as long as it can be where it cannot be looked at."""
    content = os.pread(file, page.packed_bytes, place)
    try:
        if compression != "UNCOMPRESSED":
            codec = {"LZ4": "lz4_raw"}.get(compression, compression.lower())
            content = pa.decompress(content, page.unpacked_bytes, codec).to_pybytes()
    except (pa.ArrowException, ValueError, OSError):
        return page.unpacked_bytes
    longest = at = 0
    while at + _OFFSET_BYTES <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        longest = max(longest, length)
        at += _OFFSET_BYTES + length
    return min(longest, page.unpacked_bytes)


def _check_ratio(unpacked: int, packed: int, name: str, limits: FileLimits) -> None:
    """Refuse lists that may all be one row's, and are far more than their bytes."""
    if unpacked > limits.page_bytes and unpacked > packed * limits.ratio:
        raise InvalidInputError(
            f"{name}: lists of it are unpacked to {unpacked:,} bytes, more than {limits.ratio:,} times what they take "
            "(HEADRACE_LIMITS__FILE_RATIO); write the file without such lists, or in smaller row groups.",
            code="file.ratio",
        )


def _pages(file: int, start: int, end: int, values: int, name: str) -> Iterator[tuple[int, _Page]]:
    """The pages of a column chunk and where they begin behind their headers, until they have all its values."""
    seen = 0
    while start < end and seen < values:
        header, length = _header(file, start, name)
        if header.packed_bytes < 0 or header.unpacked_bytes < 0 or header.values < 0:
            raise _malformed(name)
        yield start + length, header
        seen += header.values if header.kind in (_DATA, _DATA_V2) else 0
        start += length + header.packed_bytes


def _header(file: int, start: int, name: str) -> tuple[_Page, int]:
    for size in _HEADER_BYTES:
        found = os.pread(file, size, start)
        reader = _Compact(found)
        try:
            fields = reader.struct()
        except IndexError:
            if len(found) < size:
                break
            continue
        told = [found for found in (fields.get(number) for number in (5, 7, 8)) if isinstance(found, dict)]
        numbers = [fields.get(1), fields.get(2), fields.get(3), told[0].get(1) if told else 0]
        kind, unpacked, packed, values = (number if isinstance(number, int) else -1 for number in numbers)
        return _Page(kind, unpacked, packed, values), reader.place
    raise _malformed(name)


def _malformed(name: str) -> InvalidInputError:
    return InvalidInputError(f"The file {name} is not Parquet, damaged, or encrypted.", code="file.malformed")


class _Compact:
    """Reads one struct of Thrift's compact protocol, in which headers of pages are written; IndexError where it ends too early."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, object]:
        """Read fields by their numbers; lists and texts are read over."""
        fields: dict[int, object] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):
            self._skip(8 if kind == 7 else self._unsigned())
            return None
        if kind == 12 and depth < 4:
            return self.struct(depth + 1)
        raise IndexError  # Headers of pages hold nothing else.

    def _byte(self) -> int:
        found = self._content[self.place]
        self.place += 1
        return found

    def _skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self._content):
            raise IndexError

    def _unsigned(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return result
            if shift > 70:
                raise IndexError

    def _signed(self) -> int:
        found = self._unsigned()
        return (found >> 1) ^ -(found & 1)
