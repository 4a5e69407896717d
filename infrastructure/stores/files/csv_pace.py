"""How far a file is read ahead of its rows: Arrow takes in 32 blocks in front of the one that it parses, whatever
their size.
"""

import threading
from collections.abc import Callable, Generator, Iterator

import pyarrow as pa

_AHEAD = 2
"""Blocks: a row may end in the second one."""
_LOOK_SECONDS = 1.0
_NOTHING_COMES_SECONDS = 0.25
"""After so long without rows, whoever asks for them may need another block."""


class Pace:
    """Lets a block be read once the rows of those before are asked for; one thread reads, another asks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ahead = 0
        self._is_asked = True
        self._is_over = False

    def each(self, batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
        """Ask for the rows of one block after the other."""
        while (batch := self._next(batches)) is not None:
            yield batch
            del batch

    def wait(self, stop: Callable[[], None]) -> bool:
        """Wait until a block may be read, and say whether any is wanted; `stop` is called now and then."""
        with self._changed:
            while self._ahead >= _AHEAD and not self._is_over:
                asked = self._is_asked
                if not self._changed.wait(_NOTHING_COMES_SECONDS if asked else _LOOK_SECONDS) and asked:
                    break
                stop()
            self._ahead += 1
            return not self._is_over

    def end(self) -> None:
        """No more is asked for."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        with self._changed:
            self._is_asked = True
            self._changed.notify_all()
        try:
            return next(batches, None)
        finally:
            with self._changed:
                self._ahead, self._is_asked = self._ahead - 1, False
                self._changed.notify_all()
