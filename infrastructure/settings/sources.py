"""Fills the settings from flags, environment, files and defaults, and remembers where each value came from."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError

from domain.errors import Problem, SettingsError
from domain.toml_text import read_toml
from infrastructure.settings.reference import PREFIX, SettingInfo, catalog, is_setting_name
from infrastructure.settings.rules import problems_across
from infrastructure.settings.tree import Settings

_DEEPEST = 8
"""So many sections lie in each other at most, which is more than settings have."""
# Names with our prefix that are not settings of the tree.
_OTHER_NAMES = frozenset({"HEADRACE_PROFILE", "HEADRACE_FAILPOINT", "HEADRACE_SECRETS_DIR", "HEADRACE_KEY"})


@dataclass(frozen=True)
class LoadedSettings:
    """The settings and the origin of each value that is not a default, by dotted path."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    *,
    root: Path | None,
    flags: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Read every source, in order: flag, environment, .env.<environment>, .env, headrace.toml, secrets folder.

    `root` is the project's folder, or None outside of one. Reads `.env` files of the root or the working directory.

    Raises:
        SettingsError: with all problems at once, their source and the nearest valid name, never a value.
    """
    surroundings = dict(os.environ if environment is None else environment)
    folder = root or Path.cwd()
    problems: list[Problem] = []
    infos = catalog()
    by_name = {name: info.path for info in infos for name in info.names}
    by_path = {info.path: info for info in infos}
    flag_values = dict(flags or {})
    problems += _unknown_paths(flag_values, by_path, "flag --set")
    layers: list[tuple[str, dict[str, Any]]] = [("flag --set", flag_values)]
    layers.append(("environment", _named(surroundings, by_name, "environment", problems)))
    base = _dotenv(folder / ".env", problems)
    chosen = flag_values.get("app.environment") or surroundings.get("ENVIRONMENT") or base.get("ENVIRONMENT")
    if chosen:
        named_file = folder / f".env.{chosen.lower()}" if chosen.isalnum() else folder / ".env"
        layers.append((named_file.name, _named(_dotenv(named_file, problems), by_name, named_file.name, problems)))
    layers.append((".env", _named(base, by_name, ".env", problems)))
    layers.append(("headrace.toml", _toml(folder / "headrace.toml", by_path, problems)))
    secrets_folder = surroundings.get("HEADRACE_SECRETS_DIR")
    if secrets_folder:
        layers.append(("secrets folder", _secrets(Path(secrets_folder), by_name, problems)))

    values, origins = _first_given(layers, by_path, problems)
    settings, found = _validated(values, origins, by_path)
    problems += found
    if settings is not None:
        problems += list(problems_across(settings))
        problems += _listed_settings(settings)
    if problems or settings is None:
        raise SettingsError(problems)
    return LoadedSettings(settings, origins)


def shown(loaded: LoadedSettings) -> list[tuple[str, str, str]]:
    """Return (name, value, origin) of every setting, secrets masked."""
    rows = []
    for info in catalog():
        value: Any = loaded.settings
        for part in info.path.split("."):
            value = getattr(value, part)
        if isinstance(value, SecretStr):
            text = "***"
        elif value is None:
            text = ""
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, tuple):
            text = ",".join(value)
        else:
            text = str(value)
        rows.append((info.names[0], text, loaded.origins.get(info.path, "default")))
    return rows


def _named(
    values: Mapping[str, str | None], by_name: Mapping[str, str], source: str, problems: list[Problem]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        path = by_name.get(name.upper())
        if path is not None and value is not None:
            found.setdefault(path, value)
        elif name.upper().startswith(PREFIX) and not _is_other(name.upper()):
            problems.append(_unknown(name, source, list(by_name)))
    return found


def _listed_settings(settings: Settings) -> Iterator[Problem]:
    for name in settings.secrets.environment_names:
        if is_setting_name(name):
            place = "HEADRACE_SECRETS__ENVIRONMENT_NAMES"
            yield Problem(
                place, "settings.value", f"holds {name}, which is a setting; copy the value into another variable"
            )


def _holds_nul(value: Any) -> bool:
    """No file, host or secret has it in its name, and whatever asks the system for one fails by it."""
    return "\x00" in value if isinstance(value, str) else isinstance(value, list) and any(map(_holds_nul, value))


def _is_other(name: str) -> bool:
    return name in _OTHER_NAMES or name.startswith("HEADRACE_TEST_")


def _first_given(
    layers: Sequence[tuple[str, Mapping[str, Any]]], by_path: Mapping[str, SettingInfo], problems: list[Problem]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The value of each setting from the first layer that gives one, and which layer that is."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, layer in layers:
        for path, value in layer.items():
            if path in by_path and path not in values:
                if _holds_nul(value):
                    problems.append(Problem(f"{by_path[path].names[0]} ({source})", "settings.value", "holds NUL"))
                    continue
                values[path] = value
                origins[path] = source
    return values, origins


def _unknown_paths(values: Mapping[str, Any], by_path: Mapping[str, Any], source: str) -> list[Problem]:
    return [_unknown(path, source, list(by_path)) for path in values if path not in by_path]


def _unknown(name: str, source: str, known: list[str]) -> Problem:
    nearest = difflib.get_close_matches(name.upper(), [candidate.upper() for candidate in known], n=1, cutoff=0.5)
    original = {candidate.upper(): candidate for candidate in known}
    hint = f"; did you mean {original[nearest[0]]}?" if nearest else ""
    return Problem(f"{name} ({source})", "settings.unknown", f"is not a setting{hint}")


def _dotenv(path: Path, problems: list[Problem]) -> dict[str, str | None]:
    try:
        return dict(dotenv_values(path, interpolate=False)) if path.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(path.name, "settings.unreadable", _unreadable(error)))
        return {}


def _unreadable(error: OSError | UnicodeDecodeError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "is not UTF-8"


def _toml(path: Path, by_path: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = read_toml(path)
    except ValueError as error:
        problems.append(Problem("headrace.toml", "settings.toml", str(error)))
        return {}
    section = document.get("settings", {})
    if not isinstance(section, dict):
        problems.append(Problem("headrace.toml", "settings.toml", "settings must be a table"))
        return {}
    flat = dict(_flattened(section, ()))
    problems += _unknown_paths(flat, by_path, "headrace.toml")
    return flat


def _flattened(section: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict) and len(above) < _DEEPEST:
            yield from _flattened(value, (*above, name))
        else:
            yield ".".join((*above, name)), value


def _secrets(folder: Path, by_name: Mapping[str, str], problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in by_name.items():
        for candidate in (folder / name, folder / name.lower()):
            try:
                if candidate.is_file():
                    found.setdefault(path, candidate.read_text(encoding="utf-8").rstrip("\r\n"))
            except (OSError, UnicodeDecodeError) as error:
                problems.append(
                    Problem(f"{candidate.name} (secrets folder)", "settings.unreadable", _unreadable(error))
                )
    return found


def _validated(
    values: Mapping[str, Any], origins: Mapping[str, str], by_path: Mapping[str, SettingInfo]
) -> tuple[Settings | None, list[Problem]]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    try:
        return Settings(**tree), []
    except ValidationError as error:
        problems = []
        for item in error.errors(include_input=False, include_url=False, include_context=False):
            path = _known_path(item["loc"], by_path)
            info = by_path.get(path)
            name = info.names[0] if info else path
            message = item["msg"].removeprefix("Value error, ")
            problems.append(Problem(f"{name} ({origins.get(path, 'default')})", "settings.value", message))
        return None, problems


def _known_path(location: tuple[int | str, ...], by_path: Mapping[str, SettingInfo]) -> str:
    for length in range(len(location), 0, -1):
        path = ".".join(str(part) for part in location[:length])
        if path in by_path:
            return path
    return ".".join(str(part) for part in location)
