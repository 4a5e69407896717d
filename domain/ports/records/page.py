"""A page of whatever is listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Page:
    """Items of a keyset page and the cursor of the next one, None at the end."""

    items: Sequence[Any]
    next_cursor: str | None
