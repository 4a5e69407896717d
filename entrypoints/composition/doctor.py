"""What can be told of an installation without opening it."""

import importlib.util
import platform
import stat
import sys

from domain.stores.kinds import KINDS
from entrypoints.composition.paths import Paths
from infrastructure.settings.rules import SHARED, shares_credentials
from infrastructure.settings.tree import Settings


def findings(settings: Settings, paths: Paths, is_served: bool) -> list[tuple[str, bool, str]]:
    """Return (check, whether it is well, what was found or what to do)."""
    rows = [
        ("python", sys.version_info >= (3, 11), platform.python_version()),
        ("settings", True, f"environment {settings.app.environment}, store {settings.store.kind}"),
        ("server", True, "headrace up is running" if is_served else "not running"),
        _extra(settings),
    ]
    if shares_credentials(settings):
        rows.append(("credentials", True, f"warning: HEADRACE_METADATA__USER {SHARED}"))
    if paths.home.exists():
        mode = stat.S_IMODE(paths.home.stat().st_mode)
        is_closed = mode & 0o077 == 0
        rows.append(("home", is_closed, str(paths.home) if is_closed else f"chmod 700 {paths.home}"))
    else:
        rows.append(("home", True, f"{paths.home} will be made at the first run"))
    return rows


def _extra(settings: Settings) -> tuple[str, bool, str]:
    has_driver = importlib.util.find_spec("adbc_driver_postgresql") is not None
    is_needed = KINDS[settings.store.kind].extra is not None
    is_needed |= settings.metadata.kind == "postgres"
    detail = "installed" if has_driver else "not installed: pip install 'headrace[postgres]' for Postgres"
    return "extra postgres", has_driver or not is_needed, detail
