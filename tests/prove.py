"""`make prove`: a table of every promise owed so far and the tests that hold it; an empty cell fails.

Loaded with `-p tests.prove --prove`. The tests are run, so a promise counts only if its tests passed.
"""

import inspect
import os
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from domain.ports import cache, data_store, engine, message_queue, secrets, security, telemetry, transformer
from domain.ports.records import events, unit_of_work

PORTS = {
    "IDataStore": (data_store.IDataStore, ("memory", "duckdb", "postgres")),
    "IUnitOfWork": (unit_of_work.IUnitOfWork, ("sqlite", "postgres")),
    "IEventOutbox": (events.IEventOutbox, ("sqlite", "postgres")),
    "ITransformer": (transformer.ITransformer, ("duckdb", "child")),
    "IEngine": (engine.IEngine, ("local",)),
    "ICache": (cache.ICache, ("memory", "redis")),
    "IMessageQueue": (message_queue.IMessageQueue, ("memory", "redis", "kafka")),
    "ISecretProvider": (secrets.ISecretProvider, ("env", "file")),
    "IApiKeys": (security.IApiKeys, ("sha256",)),
    "IQueryGuard": (security.IQueryGuard, ("engines",)),
    "ITelemetry": (telemetry.ITelemetry, ("otel",)),
    "IMetricsPage": (telemetry.IMetricsPage, ("prometheus",)),
}
INVARIANTS = (
    *("R1", "R2", "R3", "R4", "R5", "R6", "L1", "L2", "L3", "L4", "L5", "Q1", "Q2", "Q3", "Q4", "Q5", "C1", "S3"),
    *("D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "T2", "A1", "X1", "X2", "X3", "X4"),
)
LINES = (
    *("1", "2", "3", "4", "6", "7", "8", "9", "10", "10a", "11", "12", "14", "15"),
    *("20", "23", "25", "26", "27", "28", "29", "30", "31", "32", "36", "36a", "38"),
)
_SKIPS = Path(__file__).parent / "skips.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--prove", action="store_true", help="Print the table of promises and fail on an empty cell.")


def clauses(port: type) -> list[int]:
    """The numbers of a port's clauses, from its docstring."""
    return [int(number) for number in re.findall(r"^\s*([0-9]+)\. ", inspect.getdoc(port) or "", re.MULTILINE)]


def cells() -> list[str]:
    """Every promise owed, as a cell of the table."""
    owed = [
        f"{name} {number} × {backend}"
        for name, (port, backends) in PORTS.items()
        for number in clauses(port)
        for backend in backends
    ]
    return owed + [f"invariant {name}" for name in INVARIANTS] + [f"security line {line}" for line in LINES]


def cells_of(item: pytest.Item) -> set[str]:
    """The cells that a test belongs to."""
    parameters = set(re.split(r"[-\[\]]", item.name))
    found: set[str] = set()
    for mark in item.iter_markers("clause"):
        name, *numbers = mark.args
        backends = [backend for backend in PORTS[name][1] if backend in parameters]
        found |= {f"{name} {number} × {backend}" for number in numbers for backend in backends}
    for mark in item.iter_markers("invariant"):
        found |= {f"invariant {name}" for name in mark.args}
    for mark in item.iter_markers("line"):
        found |= {f"security line {line}" for line in mark.args}
    return found


class Prover:
    """Gathers outcomes; under xdist this runs in the controller, which sees every report."""

    def __init__(self) -> None:
        self.cells: dict[str, set[str]] = defaultdict(set)
        self.skipped: list[tuple[str, str]] = []

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skipped.append((report.nodeid, reason))
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == "cell":
                    self.cells[str(value)].add(report.nodeid)

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("promises")
        owed = cells()
        for cell in owed:
            tests = self.cells.get(cell, set())
            example = sorted(tests)[0].split("::")[-1] if tests else "NO TEST"
            terminalreporter.write_line(f"{cell:<32} {len(tests):>3}  {example}")
        empty = [cell for cell in owed if not self.cells.get(cell)]
        terminalreporter.write_line(f"{len(owed) - len(empty)} of {len(owed)} promises have passing tests")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if any(not self.cells.get(cell) for cell in cells()) or self.unexplained():
            session.exitstatus = max(int(session.exitstatus), 1)

    def unexplained(self) -> list[str]:
        """Skips that no line of skips.toml allows; they fail in CI."""
        if not os.environ.get("CI"):
            return []
        allowed = tomllib.loads(_SKIPS.read_text())["allowed"]
        return [node for node, _ in self.skipped if not any(node.startswith(prefix) for prefix in allowed)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("cell", cell) for cell in sorted(cells_of(item))]


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--prove") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Prover(), "prover")
