"""ICache in this process: least recently used entries go first, expired ones at once."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from domain.ports.cache import ICache
from domain.ports.runtime import IClock


class InMemoryCache(ICache):
    """A bounded dictionary with times to live."""

    def __init__(self, clock: IClock, *, max_entries: int = 100_000) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        self._entries.clear()

    async def health_check(self) -> str | None:
        return None

    async def get(self, key: str) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        expires, value = found
        if expires <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [await self.get(key) for key in keys]

    async def set_many(self, items: Mapping[str, bytes], *, time_to_live: timedelta) -> None:
        expires = self._clock.monotonic() + time_to_live.total_seconds()
        for key, value in items.items():
            self._entries[key] = (expires, value)
            self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def add(self, key: str, value: bytes, *, time_to_live: timedelta) -> bool:
        if await self.get(key) is not None:
            return False
        await self.set_many({key: value}, time_to_live=time_to_live)
        return True

    async def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)
