"""The first step of every process: settings, logs, failpoints, and a check that the packages are ours."""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from domain.errors import UnavailableError
from entrypoints.composition.failpoints import arm_from
from infrastructure.known_secrets import remember
from infrastructure.observability.logs import configure_logs, is_configured
from infrastructure.settings.rules import secrets_of
from infrastructure.settings.sources import LoadedSettings, load_settings

_PACKAGES = ("domain", "application", "infrastructure", "entrypoints")


__all__ = ["LoadedSettings", "check_packages", "ensure_logs", "start"]


def start(root: Path | None, flags: Mapping[str, str], *, quiet: bool) -> LoadedSettings:
    """Load settings and set the process up. `quiet` shows errors only, as commands print their own results.

    Raises:
        SettingsError: all problems of the settings.
        UnavailableError: another distribution owns one of our import names.
    """
    check_packages()
    os.umask(0o077)  # Whatever is written from now on, of databases and their logs too, is its owner's.
    # Before pyarrow is imported: the system's allocator gives memory back, so a peak does not stay.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    loaded = load_settings(root=root, flags=flags)
    settings = loaded.settings
    chosen = settings.logs.format
    as_json = chosen == "json" or (chosen == "auto" and settings.app.environment in ("staging", "production"))
    level = "debug" if settings.app.debug else settings.logs.level
    configure_logs(
        level="error" if quiet and "logs.level" not in loaded.origins else level,
        as_json=as_json,
        service=settings.app.name,
        version=version("headrace"),
        environment=settings.app.environment,
    )
    for value in secrets_of(settings):
        remember(value)
    arm_from(os.environ.get("HEADRACE_FAILPOINT"))
    return loaded


def ensure_logs() -> None:
    """Set logs up for a failure that comes before the settings are known: by themselves they would show every value in
    the frames of its traceback, the environment among them.
    """
    if not is_configured():
        configure_logs(level="error", as_json=False, service="headrace", version=version("headrace"), environment="")


def check_packages() -> None:
    """Check that our four top-level names are ours: Headrace is installed alone.

    Raises:
        UnavailableError: naming the package that is not.
    """
    home = Path(__file__).parents[2]
    for name in _PACKAGES:
        found = import_module(name).__file__
        if found is None or Path(found).parents[1] != home:
            raise UnavailableError(
                f"The package {name} is not Headrace's: another distribution uses the name. Install Headrace alone, "
                "with pipx or uv tool install.",
                code="install.name_taken",
            )
