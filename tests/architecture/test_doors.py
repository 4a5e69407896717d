"""What doors are given, use cases and nothing behind them; and what a command does not load before it needs it."""

import subprocess
import sys
from typing import get_type_hints

from application.connections.open_stores import OpenStores
from domain import ports
from entrypoints.use_cases import UseCases


def test_doors_get_use_cases_and_no_records_queue_or_stores() -> None:
    given = get_type_hints(UseCases)
    behind = {
        name: kind.__module__
        for name, kind in given.items()
        if kind is OpenStores
        or (kind.__module__.startswith(f"{ports.__name__}.") and name not in ("telemetry", "scopes"))
    }
    assert len(given) > 15
    assert behind == {}


def test_help_and_clients_load_nothing_that_they_do_not_need() -> None:
    code = """
import sys
from entrypoints.client import protocol, remote, server
from entrypoints.cli.main import app
try:
    app(["runs", "--help"])
except SystemExit:
    pass
heavy = {"duckdb", "pyarrow", "fastapi", "sqlalchemy", "dependency_injector", "urllib3", "yaml"}
print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Runs that were asked for" in done.stdout
    assert done.stderr.strip() == ""
