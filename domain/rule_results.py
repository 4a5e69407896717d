"""What became of the rules of a pipeline in one run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class RuleResult:
    """What became of one rule in one run."""

    rule: str
    scope: str
    on_violation: str
    verdict: str
    checks: int
    violations: int
    value: float | None = None
    threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RuleResult":
        """Rebuild what `to_json` gave, in this version or another."""
        return cls(**{known.name: value[known.name] for known in fields(cls) if known.name in value})
