"""The port to what is stored of organizations and API keys."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.identity.principal import Principal


@dataclass(frozen=True)
class StoredKey:
    """What is known of an API key: never the key. `roles` are as they are stored, known or not."""

    prefix: str
    subject: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class IIdentityRecords(ABC):
    """Organizations and API keys."""

    @abstractmethod
    async def ensure_organization(self, slug: str) -> None:
        """Create an organization if absent."""

    @abstractmethod
    async def has_organization(self, slug: str) -> bool:
        """Whether there is such an organization."""

    @abstractmethod
    async def add_key(self, principal: Principal, *, prefix: str, digest: str, expires_at: datetime | None) -> None:
        """Store a key's digest; the key itself is never stored."""

    @abstractmethod
    async def find_key(self, prefix: str) -> tuple[str, Principal] | None:
        """Return (digest, principal) of a live key. Where its stored roles are not all known, the principal
        has none.
        """

    @abstractmethod
    async def keys(self, organization: str) -> Sequence[StoredKey]:
        """Return the keys of an organization, the oldest first, also those that are revoked or have expired."""

    @abstractmethod
    async def revoke_key(self, organization: str, prefix: str) -> bool:
        """Revoke a key, now; say whether there was one to revoke."""
