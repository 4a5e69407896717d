"""Opens a file where it has been judged: a link that comes in its place meanwhile is not followed."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from domain.errors import SourceChangedError
from infrastructure.confinement import Confinement, open_unlinked, real_path
from infrastructure.stores.files.matches import forbidden

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".lz4": "lz4", ".zst": "zstd"}


def anywhere(_: Path) -> bool:
    """Permit every file."""
    return True


def readable(root: Path, confinement: Confinement) -> Callable[[Path], bool]:
    """Give what says of a place, links resolved, whether it is under a folder and may be read by connections."""
    folder, permits = real_path(root), confinement.permits()
    return lambda real: real.is_relative_to(folder) and permits(real)


@dataclass(frozen=True)
class FilePlace:
    """Where a file lies; `is_permitted` says of where it leads, links resolved, whether that may be read."""

    path: Path
    is_permitted: Callable[[Path], bool] = anywhere

    @classmethod
    def of(cls, place: "Path | FilePlace") -> "FilePlace":
        """The place of a file that nobody bounds, or one as it is."""
        return place if isinstance(place, cls) else cls(Path(place))  # type: ignore[arg-type]

    @property
    def compression(self) -> str | None:
        """How the file's name says that it is compressed."""
        return _COMPRESSIONS.get(self.path.suffix)

    def judged(self) -> Path:
        """Where it leads now, for who opens it without following links.

        Raises:
            InvalidInputError: it may not be read there (`path.forbidden`).
        """
        real = real_path(self.path)
        if not self.is_permitted(real):
            raise forbidden()
        return real

    @contextmanager
    def opened(self) -> Iterator[str]:
        """Open it, and give the path of what is open: who opens that has the same file.

        Raises:
            InvalidInputError: it may not be read where it leads (`path.forbidden`).
            SourceChangedError: something else came in its place.
            OSError: it cannot be opened.
        """
        real = self.judged()
        try:
            descriptor = open_unlinked(real)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._changed() from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._changed()
            place = f"/proc/self/fd/{descriptor}"
            yield place if os.path.exists(place) else str(real)  # noqa: PTH110 - without /proc there is only the name
        finally:
            os.close(descriptor)

    def _changed(self) -> SourceChangedError:
        return SourceChangedError(f"The file {self.path.name} was exchanged while it was looked at; try again.")
