"""A file that a read set has pinned by its size and time of writing: whether it is what was planned, before and while
it is read.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from domain.errors import PlatformError, SourceChangedError
from domain.loads.read_set import SourceFile

T = TypeVar("T")


def pin(path: Path, name: str) -> SourceFile:
    """Pin a file as it is now.

    Raises:
        SourceChangedError: it is not there any more.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise SourceChangedError(f"The file {name} went while it was looked at; try again.") from error
    return SourceFile(name, status.st_size, str(status.st_mtime_ns))


@dataclass(frozen=True)
class PinnedFile:
    """A pinned file where it lies; `check_place` says whether it may be reached there."""

    path: Path
    file: SourceFile
    check_place: Callable[[], None]

    def check(self) -> None:
        """Refuse one that may not be reached, or is not as it was.

        Raises:
            InvalidInputError: it leads elsewhere (`path.forbidden`).
            SourceChangedError: it is gone, or was written to.
        """
        self.check_place()
        self._check_unchanged()

    def watched(self, batches: Iterator[T]) -> Generator[T]:
        """Give the batches of the file, each read before it was written to: of one that is written over there would be
        two halves. A file that comes in its place is none of what is being read.

        Raises:
            SourceChangedError: it was written to.
        """
        opened: tuple[int, int] | None = None
        try:
            for batch in batches:
                if opened is None:
                    self.check()  # What was opened is what was checked before.
                    opened = self._identity()
                elif self._identity() == opened:
                    self._check_unchanged()
                yield batch
        except PlatformError:
            if opened in (None, self._identity()):
                self._check_unchanged()  # It explains all else.
            raise
        if opened in (None, self._identity()):
            self._check_unchanged()  # Or it was cut off where it had been read to.

    def _check_unchanged(self) -> None:
        name = self.file.path
        try:
            status = self.path.stat()
        except OSError as error:
            raise SourceChangedError(f"The file {name} of the read set is gone.") from error
        if (status.st_size, str(status.st_mtime_ns)) != (self.file.size_bytes, self.file.etag):
            raise SourceChangedError(
                f"The file {name} changed after the read set was planned; start again with --full-refresh or reset."
            )

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino
