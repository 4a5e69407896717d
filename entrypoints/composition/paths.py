"""Where the embedded files live, worked out from settings and the project's folder."""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domain.errors import StoreRefusedError, StoreUnavailableError
from infrastructure.confinement import Confinement
from infrastructure.settings.tree import Settings

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OWN = ("records.db", "data.duckdb", "admin.key", "server.json", "scratch")
_CONFIGURATION = ("headrace.toml", "connections", "pipelines")


@dataclass(frozen=True)
class Paths:
    """Absolute places. `home` is created at the first write, for its owner only."""

    home: Path
    secrets: Path
    python: Path
    confinement: Confinement

    @classmethod
    def of(cls, settings: Settings, project: Path) -> "Paths":
        """Resolve relative settings under the project's folder."""
        base = project.absolute()
        home = base / (settings.home or ".headrace")
        secrets = base / (settings.secrets.file_root or "secrets")
        python = base / "python"
        kept = [home, secrets, python, *(base / name for name in _CONFIGURATION)]
        kept += [
            base / place for place in (settings.worker.drain_file, os.environ.get("HEADRACE_SECRETS_DIR")) if place
        ]
        roots = tuple(base / root for root in settings.data_roots or ("data",))
        return cls(home, secrets, python, Confinement(base, roots, tuple(kept)))

    @property
    def records(self) -> Path:
        """The SQLite file of the platform's records."""
        return self.home / "records.db"

    @property
    def data(self) -> Path:
        """The embedded store's file."""
        return self.home / "data.duckdb"

    @property
    def admin_key(self) -> Path:
        """The administrator's key, readable by its owner only."""
        return self.home / "admin.key"

    @property
    def server(self) -> Path:
        """The address of a running `headrace up`."""
        return self.home / "server.json"

    @property
    def drain(self) -> Path:
        """The file whose being there makes a process drain."""
        return self.home / "drain"

    @property
    def scratch(self) -> Path:
        """Where DuckDB spills."""
        return self.home / "scratch"

    def create_home(self) -> None:
        """Make the home, closed to others, or close the one that there is.

        Raises:
            StoreRefusedError: `home.not_a_folder`, `home.not_creatable`, `home.read_only` or `home.open`.
            StoreUnavailableError: the disk is full.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreRefusedError(
                f"The home {self.home} cannot be a folder: a file is in its place; move it away or set HEADRACE_HOME.",
                code="home.not_a_folder",
            ) from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StoreUnavailableError("The disk of the home is full.", code="disk_full") from error
            raise StoreRefusedError(
                f"The home {self.home} cannot be made: {error.strerror}. Set HEADRACE_HOME to a folder that can.",
                code="home.not_creatable",
            ) from error
        if not os.access(self.home, os.W_OK | os.X_OK):
            raise StoreRefusedError(
                f"The home {self.home} may not be written by this user, or its file system is read-only.",
                code="home.read_only",
            )
        self._close_to_others()

    def _close_to_others(self) -> None:
        """Narrow the modes of a home and of Headrace's files in it; a folder that is used for something else is left
        alone.
        """
        mode = self.home.stat().st_mode
        if mode & _OTHERS:
            if not self._is_own() or mode & stat.S_ISVTX:
                raise self._open(
                    mode, "and holds other things than Headrace's, so that it is not closed to them for you"
                )
            try:
                self.home.chmod(0o700)
            except OSError as error:
                raise self._open(mode, "and may not be changed by this user") from error
            if self.home.stat().st_mode & _OTHERS:
                raise self._open(mode, "and its file system keeps no modes")
        own = [path for path in self.home.iterdir() if path.name.startswith(_OWN)]
        spilled = () if self.scratch.is_symlink() else self.scratch.glob("*")  # Not what lies behind a link elsewhere.
        for path in (*own, *spilled):
            with suppress(OSError):  # Gone meanwhile, or another user's; the folder itself is closed.
                if not path.is_symlink() and path.stat().st_mode & _OTHERS:
                    path.chmod(0o700 if path.is_dir() else 0o600)

    def _is_own(self) -> bool:
        """Whether nothing lies in it, or what Headrace keeps there."""
        names = {path.name for path in self.home.iterdir()}
        return not names or any(name.startswith(_OWN) for name in names)

    def _open(self, mode: int, why: str) -> StoreRefusedError:
        return StoreRefusedError(
            f"The home {self.home} is open to others (mode {stat.S_IMODE(mode):04o}) {why}: run chmod 700 on it, or "
            "set HEADRACE_HOME to a folder of Headrace's own.",
            code="home.open",
        )
