"""What applying documents changes."""

from collections.abc import Sequence
from typing import Any

from application.catalog.documents import Change


def changes_body(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The changes, each with how its pipeline would run."""
    return [change_body(change) for change in changes]


def change_body(change: Change) -> dict[str, Any]:
    """What applying would do to one document."""
    return {
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "fields": list(change.fields),
        "notes": list(change.notes),
        "columns": [vars(column) for column in change.columns],
    }
