"""How many may do something at a time that takes sessions and memory for as long as a source likes."""

from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import UnavailableError


class Turns:
    """Lets so many in, and tells the next one that there are enough."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them.

        Raises:
            UnavailableError: there are as many as there may be (`worker.busy`).
        """
        if self._taken >= self._most:
            raise UnavailableError(
                f"{self._most} previews read their sources already: try again when one of them is done.",
                code="worker.busy",
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
