"""Whether whoever is in trouble is asked: now and then, by one, so that the others do not wait for it."""

from infrastructure.clock import monotonic

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Breaker:
    """Keeps everybody away for a pause after a failure, twice as long as the last one, to a second."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = 0.0

    def lets_through(self, seconds: float) -> bool:
        """Whether to ask now; who asks after a pause is alone for the `seconds` that an answer may take."""
        if self._pause == 0.0:
            return True
        now = monotonic()
        if now < self._until:
            return False
        self._until = now + seconds
        return True

    def failed(self) -> None:
        """Keep them away."""
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._until = monotonic() + self._pause

    def worked(self) -> None:
        """Let everybody through."""
        self._pause = 0.0
