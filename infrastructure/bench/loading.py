"""What a child imports before its first call, so that calls need not wait for it."""

import importlib
from collections.abc import Sequence


def load(modules: Sequence[str]) -> None:
    """Import modules by their names."""
    for module in modules:
        importlib.import_module(module)
