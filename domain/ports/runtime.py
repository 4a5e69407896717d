"""The ports to time, identity and telemetry, so that none of them is ambient."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
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


class ITelemetry(ABC):
    """Traces of use cases. A trace travels as the text of a W3C `traceparent`."""

    @abstractmethod
    def span(self, name: str, *, trace: str | None = None) -> AbstractContextManager[None]:
        """Measure a block under a name, as a part of the trace given, else of the current one, else of a new one."""

    @abstractmethod
    def current_trace(self) -> str | None:
        """Return the trace that the caller is in, to be handed to another process."""
