"""Whose records a transaction may touch: those of one organization, or everybody's."""

from dataclasses import dataclass

from domain.errors import ScopeError


@dataclass(frozen=True)
class Scope:
    """One organization by its slug, or with None the whole platform."""

    organization: str | None

    def admit(self, *organizations: str) -> None:
        """Let pass what belongs to this scope.

        Raises:
            ScopeError: it belongs to another organization.
        """
        if self.organization is not None and any(each != self.organization for each in organizations):
            raise _refused()

    def admit_all(self) -> None:
        """Let pass what belongs to all organizations together.

        Raises:
            ScopeError: this is the scope of one.
        """
        if self.organization is not None:
            raise _refused()


def _refused() -> ScopeError:
    return ScopeError("Work for one organization reached for the records of another; nothing was done.")


PLATFORM = Scope(None)
"""What serves every organization: keys before it is known whose they are, workers, rings, events to be told."""
