"""The headers of the pages of a Parquet file: Thrift, read before anything of a page is unpacked."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from domain.errors import InvalidInputError

DICTIONARY, _DATA, _DATA_V2 = 2, 0, 3
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
    """Of the levels in front of the values, which are not packed then; None where they stand in the page by themselves."""
    is_packed: bool


def pages(file: int, start: int, end: int, values: int, name: str) -> Iterator[Page]:
    """The pages of a column chunk, until they have all its values."""
    seen = 0
    while start < end and seen < values:
        header, length = _header(file, start, name)
        if header.packed_bytes < 0 or header.unpacked_bytes < 0 or header.values < 0:
            raise malformed(name)
        yield header
        seen += header.values if header.kind in (_DATA, _DATA_V2) else 0
        start += length + header.packed_bytes


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
    told = next((found for found in (fields.get(number) for number in (5, 7, 8)) if isinstance(found, dict)), {})
    is_second = told is fields.get(8)
    names = (told.get(1), told.get(4 if is_second else 2), told.get(5), told.get(6))
    numbers = [fields.get(1), fields.get(2), fields.get(3), *names]
    kind, unpacked, packed, values, encoding, *levels = (n if isinstance(n, int) else -1 for n in numbers)
    return Page(
        kind,
        unpacked,
        packed,
        values if told else 0,
        encoding,
        place,
        sum(levels) if is_second else None,
        not is_second or told.get(7) is not False,
    )


def malformed(name: str) -> InvalidInputError:
    """Say that a file is not what it should be."""
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
