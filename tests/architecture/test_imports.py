"""What the inner layers may know is listed, rather than what they may not; and no clock of the host is in the list."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("layer", list(_KNOWN))
def test_inner_layer_is_told_the_time(layer: str) -> None:
    """By `IClock`, so that a test can say how late it is."""
    read = {"now", "utcnow", "today", "time", "monotonic", "perf_counter", "time_ns", "monotonic_ns"}
    found = [
        (str(path.relative_to(ROOT)), node.lineno)
        for path in (ROOT / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in read
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date", "time")
    ]
    assert found == []
