"""Finds out whether the automaton of a pattern that RE2 would build has few states, by building it as far as that is
quick.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from infrastructure.queries.pattern_parsing import (
    ANY,
    WORD,
    Alternatives,
    Characters,
    Pattern,
    Place,
    Ranges,
    Repetition,
    Sequence,
)

_MOST_STEPS = 100_000
"""About a hundredth of a second."""
_MOST_SIZE = 4_000


class Search(Enum):
    """How RE2 looks for a pattern."""

    WHOLE = "whole"
    """The whole text has to match."""
    ANY = "any"
    """Whether it is anywhere in a text."""
    FIRST = "first"
    """Where the first match is; the order of alternatives counts."""
    BACKWARD = "backward"
    """Where a match begins whose end is known."""


@dataclass
class Patience:
    """How many steps may be taken for several patterns together."""

    left: int = 5 * _MOST_STEPS


class TooManyStatesError(Exception):
    """There are more states than it is quick to look at."""


@dataclass
class _Program:
    """What follows what: sets of characters with what comes behind, and lists of ways, the first of them sooner."""

    is_backward: bool
    sets: dict[int, Ranges] = field(default_factory=dict)
    ways: dict[int, list[int]] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    size: int = 0
    _compiled: int = 0

    def added(self, ways: list[int], ranges: Ranges | None = None, place: str | None = None) -> int:
        """One more node."""
        number = self.size
        self.size += 1
        if self.size > _MOST_SIZE:
            raise TooManyStatesError
        self.ways[number] = ways
        if ranges is not None:
            self.sets[number] = ranges
        if place is not None:
            self.places[number] = place
        return number

    def compiled(self, node: Pattern, behind: int) -> int:
        """The node with which a pattern begins that something comes behind."""
        self._compiled += 1
        if self._compiled > 4 * _MOST_SIZE:
            raise TooManyStatesError
        match node:
            case Characters(ranges, is_known=is_known):
                if not is_known:
                    raise TooManyStatesError
                return self.added([behind], ranges=ranges)
            case Place(kind):
                return self.added([behind], place=kind)
            case Sequence(items):
                for item in items if self.is_backward else reversed(items):
                    behind = self.compiled(item, behind)
                return behind
            case Alternatives(items):
                return self.added([self.compiled(item, behind) for item in items])
            case Repetition():
                return self._repeated(node, behind)

    def _repeated(self, node: Repetition, behind: int) -> int:
        if node.most is None:
            again = self.added([])
            begin = self.compiled(node.item, again)
            self.ways[again] = [behind, begin] if node.is_lazy else [begin, behind]
            behind = again
        else:
            end = behind
            for _ in range(node.most - node.least):
                begin = self.compiled(node.item, behind)
                behind = self.added([end, begin] if node.is_lazy else [begin, end])
        for _ in range(node.least):
            behind = self.compiled(node.item, behind)
        return behind


@dataclass(frozen=True)
class Letter:
    """Characters that are alike for a pattern: the nodes that take one, and what it is for places."""

    nodes: frozenset[int]
    kind: str


MATCH = -1
Nodes = tuple[int, ...]
State = tuple[Nodes, str]
"""The nodes at which a search may be, and what was before."""


class States:
    """The states of one search."""

    def __init__(self, pattern: Pattern, search: Search, patience: Patience) -> None:
        self._patience = patience
        self._search = search
        self._is_backward = search is Search.BACKWARD
        self._program = _Program(self._is_backward)
        self._match = self._program.added([])
        begin = self._program.compiled(pattern, self._match)
        if search in (Search.ANY, Search.FIRST):
            begin = self._program.compiled(Repetition(Characters(ANY), 0, None, is_lazy=True), begin)
        self._steps = 0
        self._behind: dict[int, list[int]] = {}
        self.begin = self._cut(self._reached([begin]))
        self.letters = self._letters()

    def most(self) -> int:
        """How many nodes the largest state has.

        Raises:
            TooManyStatesError: there are too many.
        """
        left: list[State] = [(self.begin, "begin")]
        seen, most = set(left), 0
        while left:
            nodes, before = left.pop()
            most = max(most, len(nodes))
            for letter in self.letters:
                here = self.here(nodes, before, letter)
                if self._search is Search.ANY and MATCH in here:
                    continue
                state = (self.behind(here, letter), letter.kind)
                if state not in seen:
                    seen.add(state)
                    left.append(state)
        return most

    def here(self, nodes: Nodes, before: str, letter: Letter) -> Nodes:
        """The nodes of a state that are left where it is known what comes behind: places are passed, or are not."""
        if not self._program.places:
            return nodes
        return self._cut(self._reached(nodes, lambda kind: self._is_passed(kind, before, letter.kind)))

    def behind(self, nodes: Nodes, letter: Letter) -> Nodes:
        """The nodes behind a letter."""
        found: dict[int, None] = {}
        self._count(len(nodes))
        for number in nodes:
            if number not in letter.nodes:
                continue
            behind = self._behind.get(number)
            if behind is None:
                behind = self._behind[number] = self._reached(self._program.ways[number])
            self._count(1 + len(behind))
            found |= dict.fromkeys(behind)
        return self._cut(list(found))

    def _letters(self) -> list[Letter]:
        kinds: dict[Ranges, list[int]] = {}
        for number, ranges in self._program.sets.items():
            self._count(len(ranges))
            kinds.setdefault(ranges, []).append(number)
        places = set(self._program.places.values())
        words = WORD if places & {"word", "inner"} else ()
        lines = ((10, 10),) if places & {"line begin", "line end"} else ()
        starts = {at for ranges in (*kinds, words, lines) for low, high in ranges for at in (low, high + 1)}
        found = set()
        for start in starts:
            self._count(sum(map(len, kinds)))
            holding = [numbers for ranges, numbers in kinds.items() if _holds(ranges, start)]
            self._count(sum(map(len, holding)))
            kind = "word" if _holds(words, start) else "line" if _holds(lines, start) else ""
            found.add(Letter(frozenset(number for numbers in holding for number in numbers), kind))
        return list(found)

    def _is_passed(self, kind: str, before: str, behind: str) -> bool:
        match kind:
            case "word" | "inner":
                return ((before == "word") != (behind == "word")) == (kind == "word")
            case "begin" | "end":
                return before == "begin" and (kind == "end") == self._is_backward
            case _:
                is_before = (kind == "line begin") != self._is_backward
                return before in ("begin", "line") if is_before else behind == "line"

    def _reached(self, begins: Iterable[int], is_passed: Callable[[str], bool] = lambda _: False) -> list[int]:
        """The nodes that take a character, the places and the match, where one may be without taking any."""
        left, seen, found = list(begins)[::-1], set[int](), list[int]()
        while left:
            number = left.pop()
            if number in seen:
                continue
            seen.add(number)
            self._count(2)
            place = self._program.places.get(number)
            if number in (self._match, MATCH):
                found.append(MATCH)
            elif number in self._program.sets or (place is not None and not is_passed(place)):
                found.append(number)
            else:
                left += reversed(self._program.ways[number])
        return found

    def _cut(self, numbers: list[int]) -> tuple[int, ...]:
        if self._search is Search.FIRST:
            return tuple(numbers[: numbers.index(MATCH) + 1] if MATCH in numbers else numbers)
        return tuple(sorted(numbers))

    def _count(self, steps: int) -> None:
        self._steps += steps
        self._patience.left -= steps
        if self._steps > _MOST_STEPS or self._patience.left < 0:
            raise TooManyStatesError


def _holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def largest_state(pattern: Pattern, search: Search, patience: Patience) -> int:
    """In how many places of a pattern a search may be at once at most.

    Raises:
        TooManyStatesError: it has more states than it is quick to look at.
    """
    return States(pattern, search, patience).most()
