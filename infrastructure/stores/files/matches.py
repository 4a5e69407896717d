"""Which files of a folder a pattern names; what is hidden, Headrace's own or elsewhere is not among them."""

import fnmatch
import os
from pathlib import Path

from domain.errors import InvalidInputError, NotFoundError
from domain.pipelines.local_path import is_hidden, leads_astray
from infrastructure.confinement import Confinement, real_path
from infrastructure.descriptors import shortage
from infrastructure.stores.files.formats import format_of

_DEEPEST = 100
"""Folders in folders that are looked into: to see where one leads takes as many steps as there are above it."""


def tables_under(root: Path, confinement: Confinement) -> list[str]:
    """List the CSV and Parquet files of a folder that a path may name."""
    permits, found = confinement.permits(), list[str]()
    if not permits(root):
        return found
    waiting = [root]  # Not `os.walk`, which calls itself for each folder in a folder.
    while waiting:
        folder = waiting.pop()
        for path in (folder / name for name in _names(folder) if not is_hidden(name)):
            if _is_folder(path):
                is_entered = not _is_too_deep(path, root) and not _is_link(path) and permits(path)
                waiting += [path] if is_entered else []
            elif (
                format_of(path.name)
                and _is_text(str(path))
                and is_inside(path, root)
                and permits(path)
                and _is_file(path)
            ):
                found.append(path.relative_to(root).as_posix())
    return sorted(found)


def matches(root: Path, pattern: str, confinement: Confinement) -> list[Path]:
    """Find the files that a pattern names, in order. A wildcard passes over what connections never reach.

    Raises:
        InvalidInputError: it leads elsewhere, by its spelling or by a link (`path.forbidden`).
        InvalidInputError: the name of one is no text (`file.name`).
        NotFoundError: there is no such file.
    """
    if leads_astray(pattern):
        raise forbidden()
    confinement.check(root)
    steps = _Steps(root, confinement)
    found = {root}
    for part in (part for part in pattern.split("/") if part not in ("", ".")):
        found = steps.below(found) if part == "**" else steps.children(found, part)
    paths = sorted(path for path in found if _is_file(path))
    for path in paths:
        if not _is_text(str(path)):
            raise _not_a_text(path.relative_to(root))
    if not paths:
        raise _nothing_found(pattern, is_folder=any(_is_folder(path) for path in found))
    return paths


class _Steps:
    """Goes from folders to what lies in them, looking at each step where it leads before anything behind it is looked
    at.
    """

    def __init__(self, root: Path, confinement: Confinement) -> None:
        self._given = root
        self._root = real_path(root)
        self._permits = confinement.permits()

    def children(self, folders: set[Path], part: str) -> set[Path]:
        """What a part of a pattern names in folders."""
        is_wild = any(sign in part for sign in "*?[")
        found = set[Path]()
        for folder in folders:
            names = (name for name in _names(folder) if fnmatch.fnmatchcase(name, part)) if is_wild else (part,)
            found |= {folder / name for name in names if self._is_reached(folder / name, is_wild=is_wild)}
        return {path for path in found if os.path.exists(path)}  # noqa: PTH110 - pathlib raises for names too long

    def below(self, folders: set[Path]) -> set[Path]:
        """The folders and all that lie in them; links are not followed."""
        found, waiting = set(folders), list(folders)
        while waiting:
            folder = waiting.pop()
            inner = (folder / name for name in _names(folder))
            new = {
                path
                for path in inner
                if path not in found
                and not _is_too_deep(path, self._given)
                and _is_folder(path)
                and not _is_link(path)
                and self._is_reached(path, is_wild=True)
            }
            found |= new
            waiting += new
        return found

    def _is_reached(self, path: Path, *, is_wild: bool) -> bool:
        if is_wild and is_hidden(path.name):
            return False
        real = real_path(path)
        if real.is_relative_to(self._root) and self._permits(path):
            return True
        if is_wild and not _is_link(path):
            return False
        raise forbidden()


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:  # It is a file, or may not be read.
        if short := shortage(error):
            raise short from error
        return []


def _is_too_deep(path: Path, root: Path) -> bool:
    return len(path.parts) - len(root.parts) > _DEEPEST


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for names too long


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112


def _is_link(path: Path) -> bool:
    return os.path.islink(path)  # noqa: PTH114


def _is_text(name: str) -> bool:
    """Whether a name can be told: a system takes any bytes for one."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def _not_a_text(path: Path) -> InvalidInputError:
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    return InvalidInputError(
        f"The name of the file {shown} is not UTF-8: rename it, or write a pattern that does not name it.",
        code="file.name",
    )


def is_inside(path: Path, root: Path) -> bool:
    """Say whether a path leads, links resolved, to something under a folder."""
    return real_path(path).is_relative_to(real_path(root))


def forbidden() -> InvalidInputError:
    """Say that a path leads out of its connection's folder, or to what connections never reach."""
    return InvalidInputError(
        "A path stays inside the folder of its connection, links resolved, and names nothing that begins with a dot "
        "and none of Headrace's own files.",
        code="path.forbidden",
    )


def _nothing_found(pattern: str, *, is_folder: bool) -> NotFoundError:
    if not is_folder:
        what, such = f"No file matches {pattern}", "*.csv"
    elif "*" in pattern or "?" in pattern:
        what, such = f"{pattern} matches folders alone", f"{pattern.rstrip('/')}/*.parquet"
    else:
        what, such = f"{pattern} is a folder", f"{pattern.rstrip('/')}/*.csv"
    return NotFoundError(
        f"{what} under the folder of the connection; write a pattern such as {such}.", code="file.not_found"
    )
