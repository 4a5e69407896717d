"""What a run is a run of: a thing of some kind, by its name, at one of its revisions."""

from dataclasses import dataclass
from enum import StrEnum


class WorkKind(StrEnum):
    """Of what there are runs."""

    PIPELINE = "pipeline"

    def named(self, name: str) -> "WorkName":
        """One of this kind, in some organization."""
        return WorkName(self, name)


@dataclass(frozen=True)
class WorkName:
    """A thing of which there are runs, whatever its revision: what fences are counted for."""

    kind: WorkKind
    name: str


@dataclass(frozen=True)
class WorkRef:
    """One revision of it: what one run is a run of."""

    kind: WorkKind
    name: str
    revision: int

    @property
    def named(self) -> WorkName:
        """It, whatever its revision."""
        return WorkName(self.kind, self.name)
