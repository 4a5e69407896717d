"""Small projects for end-to-end tests."""

from pathlib import Path
from urllib.parse import urlsplit

ROWS = 1000


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def new_project(folder: Path) -> Path:
    """An empty project in a new folder, or in one that is empty."""
    (folder / "data").mkdir(parents=True)
    write(folder, "headrace.toml", "[settings]\n")
    return folder


def with_people(folder: Path, *, rows: int = ROWS) -> None:
    """A CSV of people (one in a hundred too old, with text that needs care) and its connection."""
    lines = ["id,name,age,joined"]
    lines += [
        f'{n},"name, ""{n}""",{n % 100 if n % 100 else 999},2024-01-{1 + n % 28:02d}T00:00:00Z'
        for n in range(1, rows + 1)
    ]
    write(folder, "data/people.csv", "\n".join(lines) + "\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")


def people_pipeline(
    *, table: str = "people", connection: str | None = None, extra_rules: str = "", mode: str = "append"
) -> str:
    to = f"connection: {connection}, " if connection else ""
    return f"""version: 1
pipeline: people
source: {{connection: landing, path: people.csv, key: [id]}}
transform:
  - sql: select *, upper(name) as shouted from batch where id <> 13
quality:
  - {{rule: not_null, column: id}}
  - {{rule: between, column: age, min: 0, max: 130, on_violation: quarantine}}
{extra_rules}destination: {{{to}table: {table}, mode: {mode}}}
run: {{batch_rows: 100}}
"""


UNIQUE = "  - {rule: unique, columns: [id]}\n"


def postgres_environment(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "HEADRACE_STORE__KIND": "postgres",
        "DB_HOST": parts.hostname or "",
        "DB_PORT": str(parts.port),
        "DB_NAME": parts.path.lstrip("/"),
        "DB_USER": parts.username or "",
    }


def postgres_connection(url: str, name: str = "warehouse") -> str:
    parts = urlsplit(url)
    return (
        f"version: 1\nconnection: {name}\nkind: postgres\noptions: {{host: {parts.hostname}, port: {parts.port}, "
        f"database: {parts.path.lstrip('/')}, user: {parts.username}}}\n"
    )
