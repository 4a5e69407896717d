"""The port to a cache: everything in it may vanish at any time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta


class ICache(ABC):
    """Bytes under text keys; callers put the organization into the key.

    1. What was never set, was deleted or has expired is None.
    2. `get` and `get_many` return values as they were set; `get_many` keeps the order of the keys.
    3. A value expires after its time to live.
    4. `add` sets only what is absent and says whether it did.
    5. Size is bounded: the least recently used entries go first.
    6. `close` releases everything; a closed cache can be opened again, empty or not.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; harmless when nothing is open."""

    @abstractmethod
    async def health_check(self) -> str | None:
        """Name the trouble, or None."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """Return the value, or None."""

    @abstractmethod
    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values in the order of the keys."""

    @abstractmethod
    async def set_many(self, items: Mapping[str, bytes], *, time_to_live: timedelta) -> None:
        """Set values, all with the same time to live."""

    @abstractmethod
    async def add(self, key: str, value: bytes, *, time_to_live: timedelta) -> bool:
        """Set a value if the key is absent; say whether it was."""

    @abstractmethod
    async def delete_many(self, keys: Sequence[str]) -> None:
        """Forget keys; unknown ones are no error."""
