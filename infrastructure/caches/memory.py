"""ICache in this process: what was not used for long goes first, what has expired at once."""

import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from domain.features.coherence import Chain, Marker, Put, Verdict, is_written, judge
from domain.ports.cache import MOST_ROWS, ICache
from domain.ports.runtime import IClock


class InMemoryCache(ICache):
    """A bounded dictionary with times to live. It is of one process and begins empty, so with no marker."""

    def __init__(self, clock: IClock, *, max_entries: int = 100_000) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._markers: dict[str, Marker] = {}
        self._chains: dict[str, Chain] = {}

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        self._entries.clear()
        self._markers.clear()
        self._chains.clear()

    async def health_check(self) -> str | None:
        return None

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._found(key) for key in keys]

    async def set_many(self, items: Mapping[str, bytes], ttl: float = 3600) -> None:
        self._keep(items, ttl)

    async def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)

    async def read(self, marker: str, keys: Sequence[str]) -> tuple[Marker | None, list[bytes | None]]:
        return self._markers.get(marker), [self._found(key) for key in keys]

    async def put_newer(self, marker: str, put: Put, rows: Mapping[str, bytes], ttl: float = 3600) -> Verdict:
        if len(rows) > MOST_ROWS:
            raise ValueError(f"put_newer takes {MOST_ROWS} rows at a time, not {len(rows)}")
        before = self._markers.get(marker)
        verdict = judge(put, before, self._chains.get(marker))
        if before is not None and verdict.takes_rows:
            newer = {
                key: value
                for key, value in rows.items()
                if is_written(put, before, self._publication(key), publication_of(value))
            }
            self._keep(newer, ttl)
        if verdict.marker is not None:
            self._markers[marker] = verdict.marker
        if verdict.chain is not None:
            self._chains[marker] = verdict.chain
        return verdict

    async def install(self, marker: str, remembered: Marker | None, new: Marker) -> bool:
        if self._markers.get(marker) != remembered:
            return False
        self._markers[marker] = new
        return True

    def _found(self, key: str) -> bytes | None:
        found = self._entries.get(key)
        if found is None:
            return None
        expires, value = found
        if expires <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def _publication(self, key: str) -> int | None:
        value = self._found(key)
        return None if value is None else publication_of(value)

    def _keep(self, items: Mapping[str, bytes], ttl: float) -> None:
        expires = self._clock.monotonic() + ttl
        for key, value in items.items():
            self._entries[key] = (expires, value)
            self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


def publication_of(value: bytes) -> int:
    """The number of the publication that a value says it is of."""
    return int(struct.unpack_from(">Q", value)[0])
