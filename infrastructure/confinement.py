"""Which local files connections may reach: those under the data roots, links resolved, that are neither hidden nor
Headrace's.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from domain.errors import InvalidInputError
from domain.pipelines.local_path import folded, is_hidden, leads_astray

_LOOKS = 10
# Where a volume of Kubernetes keeps what the links in it lead to; no path can be written so.
_MOUNTED = re.compile(r"\.\.(data|[0-9]{4}(_[0-9]{2}){5}\.[0-9]{1,12})")


@dataclass(frozen=True)
class Confinement:
    """Relative paths resolve from `base`; what is `kept` is never reached, whichever root it lies under.

    A hard link cannot be told from the file itself: whoever may make one can read the file anyway.
    """

    base: Path
    roots: tuple[Path, ...]
    kept: tuple[Path, ...] = ()

    def place(self, relative: str) -> Path:
        """Give the place of a path that a connection names.

        Raises:
            InvalidInputError: connections may not reach it (`path.forbidden`).
        """
        if leads_astray(relative):
            raise self._hidden()
        path = self.base / relative
        self.check(path)
        return path

    def check(self, path: Path) -> None:
        """Look where a path leads now.

        Raises:
            InvalidInputError: connections may not reach it (`path.forbidden`).
        """
        if self.permits()(path):
            return
        real = real_path(path)
        raise self._hidden() if any(real.is_relative_to(real_path(root)) for root in self.roots) else self._outside()

    def permits(self) -> Callable[[Path], bool]:
        """Give what says of a path whether connections may reach it; made anew for each listing, as links change."""
        roots = [real_path(root) for root in self.roots]
        kept = [real_path(place) for place in self.kept]
        names, identities = {_folded(place) for place in kept}, {*_identities(kept)}
        known = dict[Path, bool]()

        def is_own(place: Path) -> bool:
            """By its name, as it may not be there yet; and by what it is, as it may have other names."""
            return _folded(place) in names or not identities.isdisjoint(_identities([place]))

        def is_kept(path: Path) -> bool:
            below = list[Path]()  # Folders may lie in each other deeper than calls.
            while path not in known and path.parent != path:
                below.append(path)
                path = path.parent
            found = known[path] = known[path] if path in known else is_own(path)
            for place in reversed(below):
                found = known[place] = found or is_own(place)
            return found

        def is_permitted(path: Path) -> bool:
            real = real_path(path)
            is_shown = any(
                real.is_relative_to(root) and not any(_is_hidden(part) for part in real.relative_to(root).parts)
                for root in roots
            )
            return is_shown and not is_kept(real)

        return is_permitted

    def _outside(self) -> InvalidInputError:
        return InvalidInputError(
            "A path of a connection leads to files that connections may not use. Paths are relative to the project "
            f"and, links resolved, stay inside {self._told()}: move the files there, or list their folder in "
            "HEADRACE_DATA_ROOTS.",
            code="path.forbidden",
        )

    def _hidden(self) -> InvalidInputError:
        return InvalidInputError(
            "A path of a connection leads to what connections never reach: names that begin with a dot, the home, "
            "the secrets, python/, connections/, pipelines/ and headrace.toml, whatever HEADRACE_DATA_ROOTS says. "
            f"Put the files into a folder of their own inside {self._told()}.",
            code="path.forbidden",
        )

    def _told(self) -> str:
        shown = (root.relative_to(self.base) if root.is_relative_to(self.base) else root for root in self.roots)
        return " or ".join(f"{root}/" if str(root) != "." else "the project" for root in shown)


def _is_hidden(part: str) -> bool:
    return is_hidden(part) and not _MOUNTED.fullmatch(part)


def real_path(path: Path) -> Path:
    """Where a path leads, as far as it exists; unlike `Path.resolve`, of links in a circle too. A chain of links
    without end leads nowhere that anything may be read from, and neither does one that is another at each look.
    """
    for _ in range(_LOOKS):
        try:
            return Path(os.path.realpath(path))
        except RecursionError:
            break
        except OSError:  # It was a link a moment ago.
            continue
    return Path(path.anchor)


def is_held(path: Path) -> bool | None:
    """Whether this process has the file open that lies at a path now, which is no link; None where the system does not
    tell.
    """
    try:
        descriptors = [*Path("/proc/self/fd").iterdir()]
    except OSError:
        return None
    try:
        status = path.lstat()
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in _identities(descriptors)


def open_unlinked(path: Path) -> int:
    """Open a file to read it, by an absolute path in which no link is followed: where they lead has been looked at.
    A pipe does not keep waiting.

    Raises:
        OSError: a part of the path is a link by now, or the file cannot be opened.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    folder = os.open(path.anchor, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        for part in path.parts[1:-1]:
            # To pass through a folder takes no right to list it.
            inner = os.open(part, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(path.name, os.O_RDONLY | os.O_NONBLOCK | flags, dir_fd=folder)
    finally:
        os.close(folder)


def _folded(path: Path) -> str:
    return folded(str(path))


def _identities(paths: Iterable[Path]) -> Iterable[tuple[int, int]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino
