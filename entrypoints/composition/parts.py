"""What is asked of each part that the process needs, to know whether it is ready."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from application.connections.open_stores import DEFAULT_SPEC, OpenStores
from application.operations.health import PartCheck, PartHealth, PartStatus
from domain.errors import PlatformError
from domain.identity.scope import PLATFORM
from domain.ports.records.unit_of_work import IRecords
from domain.stores.connection import failing_step
from infrastructure.room import room_of

DEGRADED_SHARE = 0.1
"""Less than this share of a disk free is worth saying."""

_NO_KEY = "health"


def needed(trouble: Callable[[], Awaitable[str | None]]) -> PartCheck:
    """A part without which nothing can be done, that says itself what troubles it."""

    async def check() -> PartHealth:
        return PartHealth.of(await trouble())

    return check


def helpful(trouble: Callable[[], Awaitable[str | None]]) -> PartCheck:
    """A part without which all is done, and slower, that says itself what troubles it."""

    async def check() -> PartHealth:
        return PartHealth.of_help(await trouble())

    return check


def store_health(stores: OpenStores, organization: str) -> PartCheck:
    """The default store: opened if it is not, and tried. Whoever asks has no key, so only the step is told."""

    async def check() -> PartHealth:
        try:
            store = await stores.get(organization, DEFAULT_SPEC)
        except PlatformError as error:
            step = f"failed at {failing_step(error)} [{error.code}]"
        else:
            health = await store.health_check()
            if health.is_healthy:
                return PartHealth()
            step = f"failed at {health.step}"
        return PartHealth.of(f"{step}; see: headrace connections test default")

    return check


def authentication_health(records: IRecords) -> PartCheck:
    """Whether keys can be looked up."""

    async def check() -> PartHealth:
        try:
            async with records.read(PLATFORM) as unit:
                await unit.identity.find_key(_NO_KEY)
        except PlatformError as error:
            return PartHealth.of(f"the keys cannot be looked up [{error.code}]")
        return PartHealth()

    return check


def migrations_health(records: IRecords) -> PartCheck:
    """Whether the records are as this version writes them."""

    async def check() -> PartHealth:
        try:
            current, newest = await records.current()
        except PlatformError as error:
            return PartHealth.of(f"the revision of the records cannot be read [{error.code}]")
        if current == newest:
            return PartHealth()
        return PartHealth.of(f"the records are at revision {current}, and this version works with {newest}")

    return check


def disk_health(folders: Sequence[Path], least_mb: int) -> PartCheck:
    """The room on the disks of the home and of what is spilled."""

    def look() -> PartHealth:
        rooms = [room for folder in folders if (room := room_of(folder)) is not None]
        if not rooms:
            return PartHealth()
        free, share = min(room[0] for room in rooms), min(room[1] for room in rooms)
        if free < least_mb * 2**20:
            return PartHealth.of(f"{free >> 20:,} MB of the disk are free; at least {least_mb:,} are wanted")
        if share < DEGRADED_SHARE:
            return PartHealth(PartStatus.DEGRADED, f"{share:.0%} of the disk are free")
        return PartHealth()

    async def check() -> PartHealth:
        return await asyncio.to_thread(look)  # A disk of another host may not answer.

    return check
