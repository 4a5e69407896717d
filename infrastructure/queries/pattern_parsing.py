"""Reads a regular expression as RE2 does, into a tree: sets of characters, what follows, alternatives, repetitions,
places.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Ranges = tuple[tuple[int, int], ...]
MAX_DEPTH = 60
_MOST_TIMES = 1_000
_ALL = 0x10FFFF
_MOST_TABLES = 3
_LAST = _ALL + 2**_MOST_TABLES
"""Behind all characters there is one for each way in which others than ASCII's may be in the tables that a pattern
names.
"""
ANY: Ranges = ((0, _LAST),)
_LINE: Ranges = ((0, 9), (11, _LAST))
_DIGIT: Ranges = ((48, 57),)
_UPPER, _LOWER = ((65, 90),), ((97, 122),)
WORD: Ranges = (*_DIGIT, *_UPPER, (95, 95), *_LOWER)
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
_SETS: dict[str, Ranges] = {"d": _DIGIT, "w": WORD, "s": _SPACE}
_NAMED: dict[str, Ranges] = {
    "alnum": (*_DIGIT, *_UPPER, *_LOWER), "alpha": (*_UPPER, *_LOWER), "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)), "digit": _DIGIT, "graph": ((33, 126),), "lower": _LOWER, "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)), "space": ((9, 13), (32, 32)), "upper": _UPPER, "word": WORD,
    "xdigit": (*_DIGIT, (65, 70), (97, 102)),
}  # fmt: skip
_ASCII_OF_TABLES: dict[str, Ranges] = {
    "L": _NAMED["alpha"], "Lu": _UPPER, "Ll": _LOWER, "Lm": (), "Lo": (), "Lt": (), "Latin": _NAMED["alpha"],
    "N": _DIGIT,
    "P": _NAMED["punct"], "S": _NAMED["punct"], "Z": ((32, 32),), "Common": ((0, 64), (91, 96), (123, 127)),
    "C": _NAMED["cntrl"],
    **dict.fromkeys(("Cyrillic", "Coptic", "Cherokee", "Phoenician", "Sinhala", "Syriac", "Nko", "Zl", "Zp", "Nl",
                     "No"), ()),
}  # fmt: skip
_CONTROLS = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
PlaceKind = Literal["begin", "end", "line begin", "line end", "word", "inner"]
_PLACES: dict[str, PlaceKind] = {"A": "begin", "z": "end", "b": "word", "B": "inner"}
_LINES: dict[str, PlaceKind] = {"^": "line begin", "$": "line end"}
_TEXTS: dict[str, PlaceKind] = {"^": "begin", "$": "end"}


class HardPatternError(Exception):
    """A pattern that is nested too deep, or that RE2 does not read."""


@dataclass(frozen=True)
class Characters:
    """One character of a set. One that is in Unicode's tables may be of a great many kinds in UTF-8, and is not known
    exactly where characters beyond ASCII are written too.
    """

    ranges: Ranges
    is_of_table: bool = False
    is_known: bool = True
    is_letter: bool = False
    """One character that is written, in either case where case does not count."""


@dataclass(frozen=True)
class Place:
    """What is true at some places between characters."""

    kind: PlaceKind


@dataclass(frozen=True)
class Sequence:
    """One after another."""

    items: tuple["Pattern", ...]


@dataclass(frozen=True)
class Alternatives:
    """One of several, the first of them sooner."""

    items: tuple["Pattern", ...]


@dataclass(frozen=True)
class Repetition:
    """So many times; the most is None where there is no end, and lazy is what would rather be short."""

    item: "Pattern"
    least: int
    most: int | None
    is_lazy: bool


Pattern = Characters | Place | Sequence | Alternatives | Repetition


@dataclass
class _Group:
    flags: frozenset[str]
    branches: list[tuple[Pattern, ...]]
    items: list[Pattern]

    def closed(self) -> Pattern:
        branches = [Sequence(branch) for branch in (*self.branches, tuple(self.items))]
        return branches[0] if len(branches) == 1 else Alternatives(tuple(branches))


class PatternReader:
    """Reads one pattern from its beginning to its end."""

    def __init__(self, text: str, flags: Iterable[str] = ()) -> None:
        self._text = text
        self._at = 0
        self._groups = [_Group(frozenset(flags), [], [])]
        self._is_repeatable = False
        self._tables: list[str] = []
        self.is_mixed = False
        """Whether case counts in some parts and not in others."""

    def read(self) -> Pattern:
        """Read it.

        Raises:
            HardPatternError: it cannot be read.
        """
        while self._at < len(self._text):
            self._read_one()
        if len(self._groups) > 1:
            raise HardPatternError
        return self._groups[0].closed()

    def _read_one(self) -> None:
        group, sign = self._groups[-1], self._taken()
        if sign == "(":
            self._open()
        elif sign == ")":
            if len(self._groups) < 2:
                raise HardPatternError
            self._groups.pop()
            self._add(group.closed())
        elif sign == "|":
            group.branches.append(tuple(group.items))
            group.items = []
            self._is_repeatable = False
        elif sign in "*+?":
            self._repeat(int(sign == "+"), 1 if sign == "?" else None)
        elif sign == "{" and (counts := self._counts()) is not None:
            self._repeat(*counts)
        elif sign == "[":
            self._add(self._class())
        elif sign in "^$":
            self._add(Place((_LINES if "m" in group.flags else _TEXTS)[sign]))
        elif sign == ".":
            self._add(Characters(ANY if "s" in group.flags else _LINE))
        else:
            self._add(self._escaped() if sign == "\\" else self._literal(ord(sign)))

    def _taken(self) -> str:
        sign = self._text[self._at : self._at + 1]
        if not sign:
            raise HardPatternError
        self._at += 1
        return sign

    def _through(self, end: str) -> str:
        found = self._text.find(end, self._at)
        if found < 0:
            raise HardPatternError
        part = self._text[self._at : found]
        self._at = found + len(end)
        return part

    def _add(self, item: Pattern) -> None:
        self._groups[-1].items.append(item)
        self._is_repeatable = True

    def _open(self) -> None:
        flags = self._groups[-1].flags
        if self._text.startswith("?", self._at):
            self._at += 1
            if self._text.startswith(("P<", "<"), self._at):
                self._through(">")
            else:
                before = flags
                flags, is_group = self._flags(flags)
                is_first = len(self._groups) == 1 and not self._groups[0].items and not self._groups[0].branches
                self.is_mixed |= ("i" in before) != ("i" in flags) and (is_group or not is_first)
                if not is_group:
                    self._groups[-1].flags = flags
                    self._is_repeatable = False
                    return
        if len(self._groups) > MAX_DEPTH:
            raise HardPatternError
        self._groups.append(_Group(flags, [], []))
        self._is_repeatable = False

    def _flags(self, flags: frozenset[str]) -> tuple[frozenset[str], bool]:
        is_off = False
        while (sign := self._taken()) not in ":)":
            if sign not in "imsU-":
                raise HardPatternError
            is_off = is_off or sign == "-"
            flags = flags - {sign} if is_off else flags | {sign}
        return flags, sign == ":"

    def _counts(self) -> tuple[int, int | None] | None:
        end = self._text.find("}", self._at, self._at + 12)
        least, comma, most = self._text[self._at : max(end, self._at)].partition(",")
        if not (least.isascii() and least.isdecimal()) or (most and not (most.isascii() and most.isdecimal())):
            return None
        self._at = end + 1
        counts = int(least), (int(most) if most else None) if comma else int(least)
        if any(count is not None and count > _MOST_TIMES for count in counts):
            raise HardPatternError
        return counts

    def _repeat(self, least: int, most: int | None) -> None:
        if not self._is_repeatable:
            raise HardPatternError
        is_lazy = self._text.startswith("?", self._at)
        self._at += is_lazy
        items, flags = self._groups[-1].items, self._groups[-1].flags
        items[-1] = Repetition(items[-1], least, most, is_lazy != ("U" in flags))
        self._is_repeatable = False

    def _literal(self, code: int) -> Characters:
        return Characters(self._folded(((code, code),)), is_letter=True)

    def _folded(self, ranges: Ranges) -> Ranges:
        """With the other case of letters, of those that are few each by itself."""
        if "i" not in self._groups[-1].flags:
            return ranges
        more = list(ranges)
        for low, high in ranges:
            for letters, other in ((_UPPER[0], 32), (_LOWER[0], -32)):
                if low <= letters[1] and high >= letters[0]:
                    more.append((max(low, letters[0]) + other, min(high, letters[1]) + other))
            if low > 127 and high - low < 100:
                for code in range(low, high + 1):
                    more += [
                        (ord(case), ord(case)) for case in (chr(code).lower(), chr(code).upper()) if len(case) == 1
                    ]
        return tuple(more)

    def _escaped(self) -> Pattern:
        sign = self._taken()
        if sign in _PLACES:
            return Place(_PLACES[sign])
        if sign == "Q":
            end = self._text.find("\\E", self._at)
            part = self._text[self._at : end if end >= 0 else len(self._text)]
            self._at = end + 2 if end >= 0 else len(self._text)
            return Sequence(tuple(self._literal(ord(letter)) for letter in part))
        if sign == "C":
            return Characters(ANY)
        return self._of_escape(sign)

    def _of_escape(self, sign: str) -> Characters:
        """The set, or the one character, of an escape that may stand within a class too."""
        if sign in "pP":
            name = self._taken()
            return self._of_table(self._through("}") if name == "{" else name, is_not=sign == "P")
        if sign.lower() in _SETS and sign.isascii():
            ranges = _SETS[sign.lower()]
            return Characters(self._folded(ranges) if sign.islower() else without(ranges))
        if sign == "x":
            digits = self._through("}") if self._taken_if("{") else self._taken() + self._taken()
            return self._literal(_number(digits, 16))
        if sign.isascii() and sign.isdecimal():
            while len(sign) < 3 and self._text[self._at : self._at + 1] in tuple("01234567"):
                sign += self._taken()
            return self._literal(_number(sign, 8))
        return self._literal(_CONTROLS.get(sign, ord(sign)))

    def _of_table(self, name: str, *, is_not: bool) -> Characters:
        is_not, name = is_not != name.startswith("^"), name.removeprefix("^")
        if name not in self._tables:
            self._tables.append(name)
        place = self._tables.index(name)
        if place >= _MOST_TABLES:
            raise HardPatternError
        others = tuple((_ALL + 1 + of, _ALL + 1 + of) for of in range(2**_MOST_TABLES) if of >> place & 1)
        ranges = (*_ASCII_OF_TABLES.get(name, _ASCII_OF_TABLES.get(name[:1], ())), *others) if name != "Any" else ANY
        return Characters(without(ranges) if is_not else ranges, is_of_table=True, is_known=self._text.isascii())

    def _taken_if(self, sign: str) -> bool:
        is_there = self._text.startswith(sign, self._at)
        self._at += is_there
        return is_there

    def _class(self) -> Characters:
        is_not, ranges, found, is_first = self._taken_if("^"), list[tuple[int, int]](), list[Characters](), True
        while is_first or not self._text.startswith("]", self._at):
            is_first = False
            if self._text.startswith("[:", self._at) and ":]" in self._text[self._at : self._at + 14]:
                self._at += 2
                name = self._through(":]")
                named = _NAMED.get(name.removeprefix("^"))
                if named is None:
                    raise HardPatternError
                ranges += without(named) if name.startswith("^") else named
                continue
            item = self._in_class()
            found.append(item)
            low = item.ranges[0][0]
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._in_class().ranges[0][0]
                ranges += self._folded(((low, high),))
            else:
                ranges += item.ranges
        self._at += 1
        return Characters(
            without(tuple(ranges)) if is_not else tuple(ranges),
            is_of_table=any(item.is_of_table for item in found),
            is_known=all(item.is_known for item in found),
        )

    def _in_class(self) -> Characters:
        sign = self._taken()
        return self._of_escape(self._taken()) if sign == "\\" else self._literal(ord(sign))


def without(ranges: Ranges) -> Ranges:
    """All characters but some."""
    left, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            left.append((at, low - 1))
        at = max(at, high + 1)
    return tuple(left) + (((at, _LAST),) if at <= _LAST else ())


def _number(digits: str, base: int) -> int:
    try:
        return min(int(digits, base), _ALL)
    except ValueError as error:
        raise HardPatternError from error
