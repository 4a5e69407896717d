"""The headers of the pages of a Parquet file: Thrift, read before anything of a page is unpacked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from domain.errors import InvalidInputError

DICTIONARY, _DATA, _DATA_V2 = 2, 0, 3
_HEADER_OF = {_DATA: 5, DICTIONARY: 7, _DATA_V2: 8}
"""Which field has the rest of a header; another one would be somebody's, for readers that look at it."""
_INTEGER_BITS = {4: 16, 5: 32, 6: 64}
_FIELDS = 2**15
_TOLD_SHORT_BYTES = 1024
"""By how much early writers say that a chunk is shorter than it is."""
_HEADER_BYTES = (512, 64 * 1024, 4 * 1024 * 1024)
"""How much of a file is looked at for one header: most are short, and the longest hold a value of statistics."""


@dataclass(frozen=True)
class Page:
    """What a header says, and where the page begins behind it."""

    kind: int
    unpacked_bytes: int
    packed_bytes: int
    values: int
    encoding: int
    place: int
    levels_bytes: int | None
    """Of the levels in front of the values, which are not packed then; None where they stand in the page by
    themselves.
    """
    is_packed: bool

    @property
    def is_sound(self) -> bool:
        """Whether its numbers can be."""
        levels = self.levels_bytes or 0
        return min(self.packed_bytes, self.unpacked_bytes, self.values, levels) >= 0 and levels <= self.packed_bytes


def pages(file: int, start: int, end: int, values: int, name: str) -> Iterator[Page]:
    """The pages of a column chunk, until they have all its values."""
    seen = 0
    while start < end + _TOLD_SHORT_BYTES and seen < values:
        header, length = _header(file, start, name)
        if not header.is_sound:
            raise malformed(name)
        yield header
        seen += header.values if header.kind in (_DATA, _DATA_V2) else 0
        start += length + header.packed_bytes
    if seen != values:
        raise malformed(name)


def _header(file: int, start: int, name: str) -> tuple[Page, int]:
    for size in _HEADER_BYTES:
        found = os.pread(file, size, start)
        reader = _Compact(found)
        try:
            fields = reader.struct()
        except IndexError:
            if len(found) < size:
                break
            continue
        return _page(fields, start + reader.place), reader.place
    raise malformed(name)


def _page(fields: dict[int, object], place: int) -> Page:
    said = fields.get(1)
    rest = fields.get(_HEADER_OF.get(said, 0)) if isinstance(said, int) else None
    told: dict[int, object] = rest if isinstance(rest, dict) else {}
    is_second = said == _DATA_V2
    names = (told.get(1), told.get(4 if is_second else 2), told.get(5), told.get(6))
    numbers = [fields.get(1), fields.get(2), fields.get(3), *names]
    kind, unpacked, packed, values, encoding, *levels = (n if isinstance(n, int) else -1 for n in numbers)
    return Page(
        kind,
        unpacked,
        packed,
        values if kind in _HEADER_OF else 0,
        encoding,
        place,
        sum(levels) if is_second else None,
        not is_second or told.get(7) is not False,
    )


def malformed(name: str) -> InvalidInputError:
    """Say that a file is not what it should be."""
    return InvalidInputError(f"The file {name} is not Parquet, damaged, or encrypted.", code="file.malformed")


class _Compact:
    """Reads one struct of Thrift's compact protocol, in which headers of pages are written; IndexError where it ends
    too early.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, object]:
        """Read fields by their numbers; lists and texts are read over."""
        fields: dict[int, object] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._signed()
            if number in fields or not 0 < number < _FIELDS:
                raise IndexError  # Which of two counts, each reader sees in its own way.
            fields[number] = self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in _INTEGER_BITS:
            found = self._signed()
            if not -(2 ** (_INTEGER_BITS[kind] - 1)) <= found < 2 ** (_INTEGER_BITS[kind] - 1):
                raise IndexError  # Others would cut it.
            return found
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
