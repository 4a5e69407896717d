"""Where the ranges of a key end, without asking the index each time."""

from domain.loads.checkpoint import Position

_FULL_ENOUGH = 0.9


class KeySteps:
    """Guesses where the next range ends, so that most ranges need no seek: keys that are numbers are often dense.

    A range found by a seek gives the width of the next ones. One that has too few rows is followed by a seek, and after
    one that has too many there are only seeks.
    """

    def __init__(self, *, may_guess: bool) -> None:
        self._may_guess = may_guess
        self._width: int | None = None
        self.is_guess = False

    def guess(self, position: Position | None, last: Position) -> Position | None:
        """The end of the range after a position, None where it has to be sought."""
        self.is_guess = self._width is not None and position is not None
        if self._width is None or position is None:
            return None
        return min((str(int(position[0]) + self._width),), last, key=lambda place: int(place[0]))

    def found(self, position: Position | None, border: Position) -> None:
        """Learn from a range that was sought."""
        if self._may_guess and position is not None:
            self._width = max(1, int(border[0]) - int(position[0]))

    def holds(self, rows: int, wanted: int) -> bool:
        """Say whether a range has no more rows than a batch may have, and learn from it."""
        if not self.is_guess:
            return True
        if rows > wanted:
            self._may_guess = False
        if rows > wanted or rows < wanted * _FULL_ENOUGH:
            self._width = None
        return rows <= wanted

    def forget(self) -> None:
        """Start again: ranges have another size now."""
        self._width = None
