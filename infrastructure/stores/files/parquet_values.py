"""How long the values of a page of Parquet are, told by their lengths alone: no value is made of them."""

import os
import struct
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from infrastructure.stores.files.parquet_deltas import greatest
from infrastructure.stores.files.parquet_headers import Page

_LENGTH = struct.Struct("<I")
_OFFSET_BYTES = 4
_LEVEL_BYTES = 4
_MOST_LOOKED_AT = 4_000_000
"""Values of a page, of which there are thousands."""
_ROOM_BYTES = 64
"""What stands in a page beside values and levels is less."""
_PLAIN, _PLAIN_OF_DICTIONARY, _LENGTHS_FIRST, _SHARED_BEGINNINGS = 0, 2, 6, 7


def at_least(page: Page) -> int:
    """How many bytes the texts of a page have at least together, as its header says; 0 where it keeps them in another
    way.
    """
    return max(0, page.unpacked_bytes - page.values * (_OFFSET_BYTES + _LEVEL_BYTES) - _ROOM_BYTES) * is_plain(page)


def is_plain(page: Page) -> bool:
    """Whether each value stands in the page with its length in front of it."""
    return page.encoding == _PLAIN


def has_texts(page: Page) -> bool:
    """Whether texts stand in the page, and not places in a dictionary."""
    return page.encoding in (_PLAIN, _LENGTHS_FIRST, _SHARED_BEGINNINGS)


def longest_beginning(file: int, page: Page, column: pq.ColumnChunkMetaData, kind: pq.ColumnSchema, enough: int) -> int:
    """How much of the text before a text of a page begins with at most, which stands in the page once for all of them.

    It is no more than the page has; that is taken for it where all of its texts together are not more than `enough`
    then.
    """
    if page.encoding != _SHARED_BEGINNINGS:
        return 0
    if page.values * page.unpacked_bytes <= enough:
        return page.unpacked_bytes
    content = _unpacked(file, page, column.compression) if page.values <= _MOST_LOOKED_AT else None
    if content is None:
        return page.unpacked_bytes
    return min(greatest(content, _values_at(content, page, kind)), page.unpacked_bytes)


def longest_text(file: int, page: Page, compression: str) -> int | None:
    """The longest text of a dictionary; None where it cannot be looked at."""
    content = _unpacked(file, page, compression)
    if content is None or page.encoding not in (_PLAIN, _PLAIN_OF_DICTIONARY):
        return None
    return min(max(_lengths(content, 0), default=0), page.unpacked_bytes)


def has_longer(file: int, page: Page, column: pq.ColumnChunkMetaData, kind: pq.ColumnSchema, most: int) -> bool:
    """Whether a page of plain texts has one with more than so many bytes; a page that cannot be looked at has none."""
    if at_least(page) > page.values * most:
        return True
    content = _unpacked(file, page, column.compression)
    if content is None:
        return False
    return any(length > most for length in _lengths(content, _values_at(content, page, kind)))


def _values_at(content: memoryview, page: Page, kind: pq.ColumnSchema) -> int:
    """Where the values of an unpacked page begin, behind its levels."""
    start = 0
    if page.levels_bytes is None:
        for level in (kind.max_repetition_level, kind.max_definition_level):
            if level and start + _OFFSET_BYTES <= len(content):
                start += int(_OFFSET_BYTES + _LENGTH.unpack_from(content, start)[0])
    return start


def _unpacked(file: int, page: Page, compression: str) -> memoryview | None:
    """A page without the levels that stand in front of it unpacked; None where it is not what its header says."""
    levels = page.levels_bytes or 0
    content = memoryview(os.pread(file, page.packed_bytes, page.place))[levels:]
    if compression == "UNCOMPRESSED" or not page.is_packed:
        return content
    try:
        codec = {"LZ4": "lz4_raw"}.get(compression, compression.lower())
        return memoryview(pa.decompress(content, page.unpacked_bytes - levels, codec))
    except (pa.ArrowException, ValueError, OSError):
        return None


def _lengths(content: memoryview, at: int) -> Iterator[int]:
    while at + _OFFSET_BYTES <= len(content):
        (length,) = _LENGTH.unpack_from(content, at)
        yield length
        at += _OFFSET_BYTES + length
