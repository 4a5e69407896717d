"""Where the embedded files live, worked out from settings and the project's folder."""

from dataclasses import dataclass
from pathlib import Path

from infrastructure.settings import Settings


@dataclass(frozen=True)
class Paths:
    """Absolute places. `home` is created at the first write, for its owner only."""

    home: Path
    data_root: Path
    secrets: Path
    python: Path = Path("python")

    @classmethod
    def of(cls, settings: Settings, project: Path) -> "Paths":
        """Resolve relative settings under the project's folder."""
        home = settings.home or Path(".headrace")
        root = settings.data_root or Path()
        secrets = settings.secrets.file_root or Path("secrets")
        places = (home, root, secrets, Path("python"))
        return cls(*((project / place).absolute() for place in places))

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
        """Make the home, closed to others."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
