"""What of a document changes."""

from collections.abc import Mapping
from typing import Any


def differences(before: Any, after: Any, above: str = "") -> list[str]:
    """Name the fields that differ, by dotted path."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            difference
            for key in sorted({*before, *after})
            for difference in differences(before.get(key), after.get(key), f"{above}.{key}" if above else key)
        ]
    return [] if before == after else [above]
