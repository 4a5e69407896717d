"""The first rows of a run that were refused: what was wrong with each and where it stands, never its values."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

MOST_FIRST_ERRORS = 10
"""As many are kept of a run: whoever wants to see more looks into the quarantine."""


@dataclass(frozen=True)
class FirstError:
    """A refused row. `kind` is `conversion` or `rule`, `ordinal` counts the rows of its batch, `column` and the `shape`
    of the value there are known where one column is at fault, `stream` and `place` once somebody has looked for it.
    Earlier versions noted less.
    """

    kind: str | None = None
    message: str | None = None
    ordinal: int | None = None
    column: str | None = None
    shape: str | None = None
    stream: str | None = None
    place: str | None = None

    @property
    def is_conversion(self) -> bool:
        """A value did not convert; else a rule was violated."""
        return self.kind == "conversion"

    def at(self, stream: str, place: str) -> "FirstError":
        """The same, with where it stands."""
        return replace(self, stream=stream, place=place)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values of what is known."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FirstError":
        """Rebuild what `to_json` gave, in this version or another."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})
