"""What reading a row group of Parquet takes in memory, told by the headers of its pages before any of them is unpacked.

A few bytes can stand for gigabytes: a page that is unpacked to more than there is, one text of a dictionary for each of
a million rows, one row with a billion values. So pages are bounded, rows are read so many at a time that they fit, and
what neither bounds is refused.
"""

from dataclasses import dataclass

import pyarrow.parquet as pq

from domain.errors import InvalidInputError, WorkFailedError
from infrastructure.stores.files.parquet_headers import DICTIONARY, Page, malformed, pages
from infrastructure.stores.files.parquet_values import (
    at_least,
    has_longer,
    has_texts,
    is_plain,
    longest_beginning,
    longest_text,
)
from infrastructure.tabular.arrow import row_too_large

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_LEAST_WIDTHS = {"INT32": 1, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
"""In memory, where small numbers are small; a bit counts as nothing."""
_OFFSET_BYTES = 4
_COPIES = 3
"""How often Arrow has a large value at a time: unpacked, gathered, and grown."""


@dataclass(frozen=True)
class FileLimits:
    """How much a file may be unpacked to where reading it in parts does not bound it."""

    page_bytes: int = 256 * 1024 * 1024
    ratio: int = 1000
    footer_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class _Chunk:
    """A column of a row group; of its pages those that may hold a value larger than a batch, by their first rows."""

    column: pq.ColumnChunkMetaData
    kind: pq.ColumnSchema
    dictionary: Page | None
    largest_page_bytes: int
    texts_bytes: int
    """What its texts have at least, unless they are in the dictionary."""
    texts: tuple[Page, ...]
    """The pages that have them."""
    large: tuple[tuple[int, Page], ...]

    @property
    def width(self) -> int:
        """What a value takes, 0 for texts."""
        physical = str(self.kind.physical_type)
        return _WIDTHS.get(physical) or int(self.kind.length if physical != "BYTE_ARRAY" else 0)

    @property
    def at_least(self) -> int:
        """How many bytes the column has at least."""
        if not self.width:
            return self.texts_bytes
        width = _LEAST_WIDTHS.get(str(self.kind.physical_type), self.width if self.width > 1 else 0)
        if self.kind.max_repetition_level > 1:  # A list in a list may be empty, and is a length then.
            width = min(width, _OFFSET_BYTES)
        return int(self.column.num_values * width)

    @property
    def most_bytes(self) -> int:
        """What may be in memory of it beside the rows that are wanted."""
        unpacked = self.largest_page_bytes + (self.dictionary.unpacked_bytes if self.dictionary else 0)
        listed = self.column.num_values * (self.width or _OFFSET_BYTES) if self.kind.max_repetition_level else 0
        return _COPIES * unpacked + (_COPIES + 1) * listed


Parts = list[tuple[int, float]]
"""How many rows follow one another, and how many bytes of texts each of them may have."""


def most_at_a_time(parts: Parts, rows: int) -> float:
    """How many bytes the texts have at most of so many rows that are read together."""
    most = read = 0.0
    place = 0
    for count, each in parts:
        room = rows - place % rows
        read += min(count, room) * each
        if count >= room:
            rest = count - room
            most, read = max(most, read, min(rest, rows) * each), rest % rows * each
        place += count
    return max(most, read)


class RowGroup:
    """A row group whose headers were looked at; nothing of it is unpacked yet."""

    def __init__(
        self, parquet: pq.ParquetFile, file: int, name: str, group: int, size: tuple[int, int], limits: FileLimits
    ) -> None:
        """Look at its headers, in the open file that Arrow reads: another one may have come in its place.

        Raises:
            InvalidInputError: a page is larger than it may be, or they are not what the footer says.
        """
        self._file, self._name, self._limits = file, name, limits
        self._rows, self._size_bytes = size
        metadata = parquet.metadata.row_group(group)
        self._count = metadata.num_rows
        if self._count < 0:
            raise malformed(name)
        self._chunks = []
        for place in range(metadata.num_columns if metadata.num_rows else 0):
            column, kind = metadata.column(place), parquet.schema.column(place)
            is_list = bool(kind.max_repetition_level)
            if column.num_values < self._count or (column.num_values != self._count and not is_list):
                raise malformed(name)  # What it says of its rows, sizes follow from.
            chunk = _looked_at(file, column, kind, name, (self._size_bytes, limits))
            self._chunks.append(chunk)
        found = [(first, page, chunk) for chunk in self._chunks for first, page in chunk.large]
        self._large = sorted(found, key=lambda one: one[0])

    @property
    def most_bytes(self) -> int:
        """What reading a part of it may take beside the rows of the part."""
        return sum(chunk.most_bytes for chunk in self._chunks)

    def rows_at_a_time(self) -> int:
        """How many rows are read at a time, so that no more than about so many rows and bytes are in memory.

        Raises:
            InvalidInputError: nothing bounds what its lists take.
            WorkFailedError: a text of a dictionary, or a list, is larger than a batch (`source.row_too_large`).
        """
        row_bytes, texts = 0.0, list[Parts]()
        for chunk in self._chunks:
            if chunk.width > self._size_bytes:
                raise self._too_large(chunk.column)
            width = chunk.width or _OFFSET_BYTES + self._text_bytes(self._file, chunk)
            parts = self._parts(self._file, chunk)
            if chunk.kind.max_repetition_level:
                self._check_lists(chunk, width, int(sum(rows * each for rows, each in parts)))
            row_bytes += chunk.column.num_values / self._count * width
            texts.append(parts)
        rows = int(max(1, min(self._rows, self._size_bytes / max(row_bytes, 1))))
        while rows > 1 and rows * row_bytes + sum(most_at_a_time(parts, rows) for parts in texts) > self._size_bytes:
            rows //= 2
        return rows

    def _parts(self, file: int, chunk: _Chunk) -> Parts:
        """The texts that stand in its pages: for how many rows there are how many bytes for each."""
        enough = self._size_bytes // max(1, len(chunk.texts))
        parts = []
        for page in chunk.texts:
            longest = longest_beginning(file, page, chunk.column, chunk.kind, enough)
            parts.append((page.values, longest + page.unpacked_bytes / max(1, page.values)))
        if not chunk.kind.max_repetition_level:
            return parts
        # Pages of lists do not say how many rows they are.
        return [(self._count, sum(values * each for values, each in parts) / self._count)]

    def _is_looked_up(self, chunk: _Chunk) -> bool:
        return chunk.dictionary is not None and (
            chunk.dictionary.unpacked_bytes * self._rows * len(self._chunks) > self._size_bytes
        )

    def _text_bytes(self, file: int, chunk: _Chunk) -> int:
        page = chunk.dictionary
        if page is None or not self._is_looked_up(chunk):
            return 0
        if at_least(page) > page.values * self._size_bytes:
            raise self._too_large(chunk.column)
        longest = longest_text(file, page, chunk.column.compression)
        if longest is not None and longest > self._size_bytes:
            raise self._too_large(chunk.column)
        return page.unpacked_bytes if longest is None else longest

    def _check_lists(self, chunk: _Chunk, width: int, texts_bytes: int) -> None:
        packed = chunk.column.total_compressed_size
        _check_ratio(chunk.column.num_values * width + texts_bytes, packed, self._name, self._limits)
        # Each row may have a value that is none, an empty list.
        if chunk.at_least - width * self._count > self._count * self._size_bytes:
            raise self._too_large(chunk.column)

    def check(self, end: int) -> None:
        """Look at the large pages which reading the rows in front of `end` unpacks, each by itself and once.

        Raises:
            WorkFailedError: one has a value that is larger than a batch (`source.row_too_large`).
        """
        while self._large and self._large[0][0] < end:
            _, page, chunk = self._large.pop(0)
            if has_longer(self._file, page, chunk.column, chunk.kind, self._size_bytes):
                raise self._too_large(chunk.column)

    def _too_large(self, column: pq.ColumnChunkMetaData) -> WorkFailedError:
        return row_too_large(self._size_bytes, column.path_in_schema.partition(".")[0])


def _looked_at(
    file: int, column: pq.ColumnChunkMetaData, kind: pq.ColumnSchema, name: str, bounds: tuple[int, FileLimits]
) -> _Chunk:
    size_bytes, limits = bounds
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset and column.dictionary_page_offset < start:
        start = column.dictionary_page_offset
    values, largest, texts_bytes, dictionary = 0, 0, 0, None
    large, texts = [], []
    for page in pages(file, start, start + column.total_compressed_size, column.num_values, name):
        if page.unpacked_bytes > limits.page_bytes:
            raise _page_too_large(page, column, name, limits)
        if page.kind == DICTIONARY:
            dictionary = page
            continue
        if kind.physical_type == "BYTE_ARRAY" and has_texts(page):
            texts.append(page)
        if kind.physical_type == "BYTE_ARRAY" and is_plain(page):
            texts_bytes += at_least(page)
            if page.unpacked_bytes > size_bytes:
                large.append((0 if kind.max_repetition_level else values, page))
        values, largest = values + page.values, max(largest, page.unpacked_bytes)
    return _Chunk(column, kind, dictionary, largest, texts_bytes, tuple(texts), tuple(large))


def _page_too_large(page: Page, column: pq.ColumnChunkMetaData, name: str, limits: FileLimits) -> InvalidInputError:
    return InvalidInputError(
        f"{name}: a page of the column {column.path_in_schema} is unpacked to {page.unpacked_bytes:,} bytes, and may "
        f"be to {limits.page_bytes:,} (HEADRACE_LIMITS__PAGE_BYTES); write the file with smaller pages.",
        code="file.page_too_large",
    )


def _check_ratio(unpacked: int, packed: int, name: str, limits: FileLimits) -> None:
    """Refuse lists that may all be one row's, and are far more than their bytes."""
    if unpacked > limits.page_bytes and unpacked > packed * limits.ratio:
        raise InvalidInputError(
            f"{name}: lists of it are unpacked to {unpacked:,} bytes, more than {limits.ratio:,} times what they take "
            "(HEADRACE_LIMITS__FILE_RATIO); write the file without such lists, or in smaller row groups.",
            code="file.ratio",
        )
