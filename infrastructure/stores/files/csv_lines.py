"""The lines of a CSV that is looked through for what is wrong with it, such that the values of a row take little room
however many there are.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import TextIO

from infrastructure.threads import while_wanted

MOST_VALUES = 100_000
"""Of a row that has more than so many, and more than the header, only that is told: as a list they take several times
the room of the row.
"""
_CHUNK_CHARACTERS = 256 * 1024
_ENDS = "\r\n"
_QUOTES = re.compile('"+')
_ODD_QUOTES = re.compile('(?<!")"(?:"")*(?!")')


class RowTooLongError(Exception):
    """A row has more characters than a row may have; no more of it was read."""


class TooManyValuesError(Exception):
    """A row has more than so many values; no more of them were read."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most


class Place(Enum):
    """Where one stands in a row, behind some of its text, as the `csv` module reads rows."""

    BEGINS = auto()
    """A value begins: a quote opens it."""
    WITHIN = auto()
    """In a value without quotes, or behind its quotes: a quote is a character."""
    QUOTED = auto()
    """In quotes, where a line's end is a character."""
    QUOTE = auto()
    """Behind a quote within quotes, which closes them or is the first of two."""

    def behind(self, text: str, delimiter: str) -> "Place":
        """The place behind more text, of one line at most."""
        place, at = self, 0
        while at < len(text):
            if place is Place.QUOTED:
                first = _QUOTES.search(text, at)
                is_closed = first is not None and len(first[0]) % 2 == 1
                closes = first if first is None or is_closed else _ODD_QUOTES.search(text, first.end())
                if closes is None:
                    return place
                place, at = Place.QUOTE, closes.end()
            elif place is not Place.WITHIN and text[at] == '"':
                place, at = Place.QUOTED, at + 1
            elif (opens := text.find(f'{delimiter}"', at)) >= 0:
                place, at = Place.QUOTED, opens + 2
            else:
                return Place.BEGINS if text[-1] == delimiter else Place.WITHIN
        return place


class Lines(Iterator[str]):
    """The lines of a text, of which no more is in memory than the longest row may have: a text can be one line without
    end. Of lines that are inside of a value all but their number is left out.
    """

    def __init__(self, text: TextIO, longest_row: int, delimiter: str, width: int = 0) -> None:
        self._text = text
        self._longest_row = longest_row
        self._delimiter = delimiter
        self._most = max(width, MOST_VALUES)
        self._stop = while_wanted()
        self._taken = self._delimiters = self._outside = 0
        self._last = ""
        self.number = 0
        """How many were read."""

    def __next__(self) -> str:
        is_inside = bool(self._taken)  # A row goes on behind a line only where a quote is open.
        line = self._read()
        while is_inside and line and '"' not in line:
            line = self._read()
        if not line:
            raise StopIteration
        self._count(line, is_inside=is_inside)
        return line

    def end_row(self) -> None:
        """Begin to count anew."""
        self._taken = self._delimiters = self._outside = 0

    def skip(self, count: int) -> None:
        """Read over lines, whatever their length."""
        for _ in range(count):
            self.number += 1
            while (part := self._part()) and part[-1] not in _ENDS:
                pass

    def outlines(self) -> Iterator[str]:
        """Lines with which rows end where they end in the text: in place of one that is long, or inside of a value, a
        short one that does the same. Who looks for the ends alone needs no room for a whole row.
        """
        while True:
            is_inside = bool(self._taken)
            part = self._part_of_row()
            if not part:
                return
            self.number += 1
            is_whole = part[-1] in _ENDS or len(part) < _CHUNK_CHARACTERS
            if is_whole and (not is_inside or '"' not in part):
                if not is_inside:
                    yield part
                continue
            place = Place.QUOTED if is_inside else Place.BEGINS
            while part:
                place = place.behind(part, self._delimiter)
                part = self._part_of_row() if part[-1] not in _ENDS else ""
            if not is_inside:
                yield f'x{self._delimiter}"\n' if place is Place.QUOTED else "x\n"
            elif place is not Place.QUOTED:
                yield '"\n'

    def _part_of_row(self) -> str:
        part = self._part()
        self._taken += len(part)
        if self._taken > self._longest_row:
            raise RowTooLongError
        return part

    def _part(self) -> str:
        """A part of a line, which goes on where it has no line's end."""
        self._stop()
        part = self._text.readline(_CHUNK_CHARACTERS)
        if part == "\n" and self._last == "\r":  # A line's end that was cut in two.
            part = self._text.readline(_CHUNK_CHARACTERS)
        self._last = part[-1:]
        return part

    def _read(self) -> str:
        self._stop()
        line = self._text.readline(self._longest_row + 1)
        self._taken += len(line)
        self.number += bool(line)
        if self._taken > self._longest_row:
            raise RowTooLongError
        return line

    def _count(self, line: str, *, is_inside: bool) -> None:
        """Tell a row of too many values: by all delimiters while there are few, then by those that are in no quotes."""
        self._delimiters += line.count(self._delimiter)
        if self._delimiters > self._most:
            self._outside += delimiters_outside(line, self._delimiter, self._most, is_inside=is_inside)
            if self._outside >= self._most:
                raise TooManyValuesError(self._most)


def delimiters_outside(line: str, delimiter: str, most: int, *, is_inside: bool) -> int:
    """How many delimiters of a line are in no quotes, of more than `most` only that many; `is_inside` where a quote is
    open before it.
    """
    if not is_inside and '"' not in line:
        return min(line.count(delimiter), most)
    count, at = 0, 0
    while count < most:
        if is_inside or line.startswith('"', at):
            at = _behind_quote(line, at + (not is_inside))
            is_inside = False
        at = line.find(delimiter, at) + 1
        if not at:
            break
        count += 1
    return count


def _behind_quote(line: str, at: int) -> int:
    """The place behind the quote that closes a value, two of them being one of its characters; the line's end where
    there is none.
    """
    while (at := line.find('"', at)) >= 0:
        if not line.startswith('"', at + 1):
            return at + 1
        at += 2
    return len(line)
