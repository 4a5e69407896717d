"""The port to keys: making them, and telling whose they are."""

from abc import ABC, abstractmethod


class IApiKeys(ABC):
    """API keys: shown once, stored as a digest.

    1. A new key has a prefix that finds it and a random part that proves it.
    2. `matches` takes the same time for a wrong key as for a right one.
    3. Text that is not shaped like a key has no prefix.
    """

    @abstractmethod
    def new(self) -> tuple[str, str, str]:
        """Return (key, prefix, digest)."""

    @abstractmethod
    def prefix_of(self, key: str) -> str | None:
        """Return the prefix of a key, or None if it is not shaped like one."""

    @abstractmethod
    def matches(self, key: str, digest: str) -> bool:
        """Compare a key with a stored digest."""
