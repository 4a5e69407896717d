"""What regular expressions cost beyond the size of their text: the places of a pattern that a letter may be at, all at
once.

RE2 reads a text in a nanosecond for a byte while its automaton has few states. `[ab]*a[ab]{60}` has 2^60, so that each
byte makes a new one, in two microseconds, and with `{990}` in ten.
"""

from collections.abc import Iterable

from infrastructure.queries.bounds import MAX_QUERY_BYTES
from infrastructure.queries.pattern_automata import Patience, Search, TooManyStatesError, largest_state
from infrastructure.queries.pattern_lookahead import reads_again
from infrastructure.queries.pattern_parsing import (
    Alternatives,
    Characters,
    HardPatternError,
    Pattern,
    PatternReader,
    Place,
    Repetition,
    Sequence,
)

WORN = 1_000.0
"""Places of a pattern that is not known; DuckDB takes no more repetitions."""
FREE = 64
"""Places that cost nothing that matters: a name of the Internet has labels of 63 letters, and patterns for them are
common.
"""
_ONCE = 10_000
"""Bytes of the text that a search is spread over which ends by itself."""
_OF_TABLE = 4
"""Times as many ways as others has a set of Unicode's, in UTF-8."""
_WHOLE = frozenset({"regexp_full_match"})
_FLAGS = frozenset("is")
_TRUTHS = _WHOLE | {"regexp_matches"}


class Patterns:
    """Weighs the patterns of one text of a user's; how long it looks at all of them together is bounded."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, frozenset[str]], float] = {}
        self._patience = Patience()

    @property
    def steps_left(self) -> int:
        """How many more are taken to look at patterns closer; without them all of their places count."""
        return self._patience.left

    def places(self, pattern: str, name: str, options: str | None = "") -> float:
        """In how many places of a pattern a call may be for each byte of a text; 0 where that does not matter. Options
        are None where they are not known.
        """
        return max(self._places(pattern, name, flags) for flags in _flags(options))

    def reads_again(self, pattern: str, options: str | None, *, if_unknown: bool) -> bool:
        """Whether finding all matches of a pattern may take the square of a text; `if_unknown` where it is not quick to
        tell.
        """
        return any(self._reads_again(pattern, flags, if_unknown) for flags in _flags(options))

    def _reads_again(self, pattern: str, flags: frozenset[str], if_unknown: bool) -> bool:
        try:
            return reads_again(_read(pattern, flags)[0], self._patience)
        except (HardPatternError, TooManyStatesError):
            return if_unknown

    def _places(self, pattern: str, name: str, flags: frozenset[str]) -> float:
        key = (pattern, name, flags)
        if key not in self._known:
            try:
                tree, is_mixed = _read(pattern, flags)
                costs = [self._cost(tree, search, name, is_mixed=is_mixed) for search in _searches(name, pattern)]
                self._known[key] = max(costs)
            except HardPatternError:
                self._known[key] = WORN
        return self._known[key]

    def _cost(self, tree: Pattern, search: Search, name: str, *, is_mixed: bool) -> float:
        most = _counted(tree, search, is_mixed=is_mixed)
        if most <= FREE:
            return 0.0
        try:
            largest = largest_state(tree, search, self._patience)
            if name in _TRUTHS or largest <= FREE:
                return 0.0
            # What the groups hold is found by reading the match once more, at all places at once.
            largest = largest_state(tree, Search.WHOLE, self._patience)
        except TooManyStatesError:
            return most
        return largest if largest > FREE else 0.0


def _flags(options: str | None) -> set[frozenset[str]]:
    given = {frozenset(options) & _FLAGS} if options is not None else {frozenset(flags) for flags in ("i", "s", "is")}
    return given | {frozenset[str]()}


def weight_of(pattern: str) -> float:
    """How many places matching a whole text with a pattern has at most; that is quick to tell."""
    try:
        tree, is_mixed = _read(pattern)
        return _counted(tree, Search.WHOLE, is_mixed=is_mixed)
    except HardPatternError:
        return WORN


def _read(pattern: str, flags: Iterable[str] = ()) -> tuple[Pattern, bool]:
    """A pattern as a tree, and whether case counts in some of its parts only."""
    if len(pattern) > MAX_QUERY_BYTES:
        raise HardPatternError
    reader = PatternReader(pattern, flags)
    return reader.read(), reader.is_mixed


def _searches(name: str, pattern: str) -> list[Search]:
    if name in _WHOLE:
        return [Search.WHOLE]
    if name in _TRUTHS:
        return [Search.ANY, Search.BACKWARD] if "$" in pattern or "\\z" in pattern else [Search.ANY]
    return [Search.FIRST, Search.BACKWARD]


def _counted(tree: Pattern, search: Search, *, is_mixed: bool) -> float:
    """The places of a pattern: those that come after what has no end, for each byte of any text; and the others, which
    only so many bytes are read at as there are places.
    """
    found = _Counted(is_backward=search is Search.BACKWARD, is_mixed=is_mixed)
    found.add(tree, 1.0, is_long=search in (Search.ANY, Search.FIRST), is_repeated=False)
    return found.long + found.short**2 / _ONCE


class _Counted:
    def __init__(self, *, is_backward: bool, is_mixed: bool) -> None:
        self._is_mixed = is_mixed
        self.long = 0.0
        self.short = 0.0
        self._is_backward = is_backward

    def add(self, node: Pattern, times: float, *, is_long: bool, is_repeated: bool) -> bool:
        """Count the places of a part; what comes behind it may come after any number of bytes, or not."""
        match node:
            case Characters(is_of_table=is_of_table, is_letter=is_letter):
                if is_repeated or self._is_mixed or not is_letter:
                    self._count(times * (_OF_TABLE if is_of_table else 1), is_long=is_long)
                return is_long
            case Place(kind):
                return is_long and kind != ("end" if self._is_backward else "begin")
            case Sequence(items):
                for item in reversed(items) if self._is_backward else items:
                    is_long = self.add(item, times, is_long=is_long, is_repeated=is_repeated)
                return is_long
            case Alternatives(items):
                ends = [self.add(item, times, is_long=is_long, is_repeated=is_repeated) for item in items]
                return any(ends)
            case Repetition(item, least, most, _):
                is_long = is_long or most is None
                count = max(1, least if most is None else most)
                return self.add(item, times * count, is_long=is_long, is_repeated=True) or is_long

    def _count(self, places: float, *, is_long: bool) -> None:
        if is_long:
            self.long += places
        else:
            self.short += places
