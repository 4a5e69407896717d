"""The port to the audit trail."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from domain.identity.principal import Principal


class IAuditRecords(ABC):
    """Who did what, kept for good."""

    @abstractmethod
    async def add_many(self, deeds: Sequence[tuple[Principal, str, str]]) -> None:
        """Store lines of (principal, action, subject) in the transaction of the deeds."""

    async def add(self, principal: Principal, action: str, subject: str) -> None:
        """Store one line."""
        await self.add_many([(principal, action, subject)])
