"""Finds out whether finding all matches of a pattern may read a text once for each of them, as `a.*x|a` does where
there is no x.
"""

from collections import deque

from infrastructure.queries.pattern_automata import MATCH, Letter, Nodes, Patience, Search, States
from infrastructure.queries.pattern_parsing import Pattern

_Chase = tuple[Nodes, Nodes, Nodes, str]
"""What a match still waits for to become a longer one, where the next search is, what its match waits for, and what was
before.
"""


_Search = tuple[Nodes, str]


class _Chases:
    """Reads on behind a match while it may become longer, and looks for further matches in what is read."""

    def __init__(self, pattern: Pattern, patience: Patience) -> None:
        self._states = States(pattern, Search.FIRST, patience)
        kinds = {"begin", *(letter.kind for letter in self._states.letters)}
        self._left: deque[_Chase | _Search] = deque((self._states.begin, kind) for kind in sorted(kinds))
        self._seen = set(self._left)

    def are_endless(self) -> bool:
        """Whether a match within what another one reads in vain may wait for the same: so may all that follow."""
        while self._left:
            state = self._left.popleft()
            for letter in self._states.letters:
                if len(state) == 2:
                    self._search(*state, letter)
                elif self._is_repeated(state, letter):
                    return True
        return False

    def _search(self, nodes: Nodes, before: str, letter: Letter) -> None:
        here = self._states.here(nodes, before, letter)
        behind = self._states.behind(here, letter)
        self._add((behind, letter.kind))
        if MATCH in here and behind:
            for afresh in self._afresh(before, letter):
                self._add((behind, afresh, (), letter.kind))

    def _is_repeated(self, chase: _Chase, letter: Letter) -> bool:
        waiting, searching, found, before = chase
        here = self._states.here(waiting, before, letter)
        waiting = self._states.behind(here, letter)
        if MATCH in here or not waiting:
            return False
        if found:
            here = self._states.here(found, before, letter)
            found = self._states.behind(here, letter)
            if MATCH in here or not found:
                return False
        here = self._states.here(searching, before, letter)
        searching = self._states.behind(here, letter)
        self._add((waiting, searching, found, letter.kind))
        if MATCH in here:
            found = found or searching
            for afresh in self._afresh(before, letter):
                self._add((waiting, afresh, (), letter.kind))
                self._add((waiting, afresh, found, letter.kind))
        return found == waiting

    def _afresh(self, before: str, letter: Letter) -> list[Nodes]:
        """Where a search is behind a letter that begins before it, in the middle of a text or of what is left of one;
        where nothing is found before it, it is passed over.
        """
        found = []
        for kind in {before, "begin"}:
            here = self._states.here(self._states.begin, kind, letter)
            found.append(self._states.begin if MATCH in here else self._states.behind(here, letter))
        return found

    def _add(self, state: _Chase | _Search) -> None:
        if state not in self._seen:
            self._seen.add(state)
            self._left.append(state)


def reads_again(pattern: Pattern, patience: Patience) -> bool:
    """Whether finding all matches may read what is behind each of them, in vain.

    Raises:
        TooManyStatesError: it is not quick to tell.
    """
    return _Chases(pattern, patience).are_endless()
