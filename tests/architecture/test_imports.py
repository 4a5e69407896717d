"""What the inner layers may know is listed, rather than what they may not; and no clock of the host is in the list."""

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LAYERS = ("domain", "application", "infrastructure", "entrypoints")
_KNOWN = {"domain": {"domain"}, "application": {"domain", "application", "structlog"}}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


@pytest.mark.parametrize("layer", list(_KNOWN))
def test_inner_layer_imports_nothing_but_what_is_listed(layer: str) -> None:
    files = list((ROOT / layer).rglob("*.py"))
    assert len(files) > 10
    allowed = _KNOWN[layer] | sys.stdlib_module_names
    found = {(str(path.relative_to(ROOT)), name) for path in files for name in _imported(path)}
    assert [(path, name) for path, name in sorted(found) if name.partition(".")[0] not in allowed] == []


_CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "time_ns", "monotonic_ns", "clock_gettime"}


def _reads_a_clock(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(name.name in names for name in node.names)
    of = node.value if isinstance(node, ast.Attribute) else None
    return (
        isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(of, ast.Name)
        and of.id in ("datetime", "date", "time")
    )


def _readings_of_clocks(layer: str, names: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / layer).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if _reads_a_clock(node, names)
    ]


@pytest.mark.parametrize("layer", list(_KNOWN))
def test_inner_layer_is_told_the_time(layer: str) -> None:
    """By `IClock`, so that a test can say how late it is."""
    assert _readings_of_clocks(layer, {*_CLOCKS, "perf_counter"}) == []


def test_adapters_read_the_clock_in_one_place() -> None:
    assert _readings_of_clocks("entrypoints", _CLOCKS) == []
    places = {place.partition(":")[0] for place in _readings_of_clocks("infrastructure", _CLOCKS)}
    assert places == {"infrastructure/clock.py"}


@pytest.mark.parametrize("layer", ["application", "entrypoints", "infrastructure"])
def test_layer_has_one_place_from_which_it_logs(layer: str) -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / layer).rglob("*.py"))
        if "structlog" in set(_imported(path))
    ]
    configures = {"infrastructure": ["infrastructure/observability/logs.py"]}
    assert found == [f"{layer}/log.py", *configures.get(layer, [])]


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_what_is_imported_of_ours_is_there(folder: str) -> None:
    """What a file names that no run of the suite imports may have moved: `tests/prove.py`, or a benchmark."""
    named = {
        (node.module, alias.name, str(path.relative_to(ROOT)))
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.startswith("test_")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in _LAYERS
        for alias in node.names
    }
    assert [each for each in sorted(named) if not _is_there(*each[:2])] == []


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(import_module(module), name) or import_module(f"{module}.{name}") is not None
    except ModuleNotFoundError:
        return False
