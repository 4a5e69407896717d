"""The ports to time and identity, so that neither is ambient."""

from abc import ABC, abstractmethod
from datetime import datetime


class IClock(ABC):
    """Time as this process sees it. Leases use the control database's clock instead."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time in UTC, with its zone."""

    @abstractmethod
    def monotonic(self) -> float:
        """Return seconds that never go back."""


class IIdentifiers(ABC):
    """New identities."""

    @abstractmethod
    def new_id(self) -> str:
        """Return a UUIDv7 as text: unique and ordered by time."""

    @abstractmethod
    def new_secret(self) -> str:
        """Return 32 random bytes as URL-safe text."""
