"""A project folder: its root, headrace.toml, and the documents in it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.errors import PermissionDeniedError, PlatformError, Problem, SpecError
from domain.toml_text import read_toml
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.reading import CheckedDocument, read_file

_FILE = "headrace.toml"
_ENDINGS = (".yaml", ".yml", ".json")
_FOLDERS = ("connections", "pipelines")
_SECTIONS = ("settings", "variables", "profiles")
_PROFILE_KEYS = ("variables", "server")


@dataclass(frozen=True)
class Project:
    """The nearest headrace.toml upwards, with the active profile laid over it; `root` is None outside a project."""

    root: Path | None
    variables: Mapping[str, Any] = field(default_factory=dict)
    server: str | None = None

    @property
    def folder(self) -> Path:
        """The root, or the working directory outside a project."""
        return self.root or Path.cwd()


def find_project(start: Path, profile: str | None) -> Project:
    """Find and read the project that a folder lies in.

    Raises:
        SpecError: headrace.toml is wrong, or has no such profile.
        PermissionDeniedError: it is another user's, above the folder (`project.of_another`).
    """
    root = root_above(start)
    if root is None:
        if profile:
            raise SpecError(
                [Problem("headrace.toml", "project.profile", "There is no headrace.toml with profiles here.")]
            )
        return Project(None)
    if root != start and _is_of_another(root):
        # Nobody chose it by being somewhere below, as in /tmp; its settings and Python act as whoever runs a command.
        raise PermissionDeniedError(
            f"{root / _FILE} lies above this folder and belongs to another user. If you trust that project, go to "
            f"{root}; if not, put a {_FILE} of your own here.",
            code="project.of_another",
        )
    try:
        document = read_toml(root / _FILE)
    except ValueError as error:
        raise SpecError([Problem(_FILE, "project.toml", f"{_FILE} {error}")]) from error
    problems = [
        Problem("headrace.toml", "spec.unknown_field", f"{name} is not a section; sections are {', '.join(_SECTIONS)}")
        for name in document
        if name not in _SECTIONS
    ]
    profiles = _table(document, "profiles", problems)
    chosen = _table(profiles, profile, problems) if profile else {}
    if profile and profile not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        problems.append(Problem("headrace.toml", "project.profile", f"there is no such profile; there are: {known}"))
    for name in chosen:
        if name not in _PROFILE_KEYS:
            problems.append(
                Problem("headrace.toml", "spec.unknown_field", f"profiles.{profile}.{name} is not a known key")
            )
    variables = {**_table(document, "variables", problems), **_table(chosen, "variables", problems)}
    for name, value in variables.items():
        if not isinstance(value, str | int | float | bool):
            problems.append(Problem("headrace.toml", "spec.value", f"variables.{name} must be text, number or boolean"))
    server = chosen.get("server")
    if server is not None and not isinstance(server, str):
        problems.append(Problem("headrace.toml", "spec.value", f"profiles.{profile}.server must be text"))
    if problems:
        raise SpecError(problems)
    return Project(root, variables, server)


def root_above(start: Path) -> Path | None:
    """The nearest folder upwards that is a project's, if there is one."""
    return next((folder for folder in (start, *start.parents) if (folder / _FILE).is_file()), None)


def _is_of_another(root: Path) -> bool:
    """Whether neither this user nor the system's has put it there; a link is its maker's, whatever it leads to."""
    file = root / _FILE
    owners = {root.stat().st_uid, file.lstat().st_uid, file.stat().st_uid}
    return not owners <= {0, os.geteuid()}


def document_files(folder: Path) -> list[Path]:
    """List the document files of a project folder, or the file itself, connections first."""
    if folder.is_file():
        return [folder]
    found: list[Path] = []
    for name in _FOLDERS:
        found += sorted(path for path in (folder / name).glob("*") if path.suffix in _ENDINGS and path.is_file())
    return found


def read_all(paths: list[Path], variables: Mapping[str, Any], limits: DocumentLimits) -> list[CheckedDocument]:
    """Read documents, reporting the problems of all of them together.

    Raises:
        SpecError: with every problem of every file.
    """
    documents: list[CheckedDocument] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, str], str] = {}
    for path in paths:
        try:
            document = read_file(path, variables, limits)
        except SpecError as error:
            problems += error.problems
            continue
        except PlatformError as error:
            problems.append(Problem(str(path), error.code, error.message))
            continue
        other = seen.setdefault((document.kind, document.name), document.filename)
        if other != document.filename:
            problems.append(
                Problem(document.filename, "spec.duplicate_name", f"{document.kind} {document.name} is also in {other}")
            )
        documents.append(document)
    if problems:
        raise SpecError(problems)
    return documents


def is_file_name(text: str) -> bool:
    """Say whether an argument means a file: it ends like one; anything else is a name."""
    return text.endswith(_ENDINGS)


def _table(document: Mapping[str, Any], name: str, problems: list[Problem]) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        problems.append(Problem("headrace.toml", "spec.value", f"{name} must be a table"))
        return {}
    return value
