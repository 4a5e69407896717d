"""A principal is a person or service acting in one organization."""

from dataclasses import dataclass
from enum import StrEnum

from domain.identity.scope import Scope

DEFAULT_ORGANIZATION = "default"


class Role(StrEnum):
    """What a principal may be in an organization; `platform_admin` holds in all of them."""

    VIEWER = "viewer"
    RUNNER = "runner"
    DATA_ENGINEER = "data_engineer"
    PIPELINE_ADMIN = "pipeline_admin"
    PLATFORM_ADMIN = "platform_admin"


@dataclass(frozen=True)
class Principal:
    """Who acts: `subject` for the audit trail, `organization` (its slug) for every record touched."""

    subject: str
    organization: str
    roles: frozenset[Role]
    email: str | None = None

    @property
    def scope(self) -> Scope:
        """What of the records they act in."""
        return Scope(self.organization)
