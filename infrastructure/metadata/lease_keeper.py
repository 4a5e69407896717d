"""Renews claims from one thread with a loop and a connection of its own, so that busy work never costs a lease (L3)."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.errors import PlatformError
from domain.failpoints import fail_at
from domain.identity.scope import PLATFORM
from domain.ports.records.runs import ILease
from domain.runs.run import LEASE_LOST
from infrastructure.clock import monotonic
from infrastructure.metadata.events import Horizon
from infrastructure.metadata.unit_of_work import SqlUnitOfWork

_LONGEST_PAUSE_SECONDS = 1.0


class HeldLease(ILease):
    """One claim under renewal. It also stops by this process's own clock, should renewals not get through (L2)."""

    def __init__(self, run_id: str, fence: int, lease: timedelta) -> None:
        self.run_id = run_id
        self.fence = fence
        self.lease = lease
        self.renewed_at = self.tried_at = monotonic()
        self.reason: str | None = None

    def stop_reason(self) -> str | None:
        if self.reason is None and monotonic() - self.renewed_at > self.lease.total_seconds():
            # For good: who was told that it is lost has stopped, though a late renewal should get through.
            self.reason = LEASE_LOST
        return self.reason

    def moved_to(self, fence: int) -> None:
        self.fence = fence


class LeaseKeeper:
    """Renews all leases of this process."""

    def __init__(self, create_engine: Callable[[], AsyncEngine]) -> None:
        self._create_engine = create_engine
        self._held: set[HeldLease] = set()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, lease: HeldLease) -> None:
        """Start renewing a lease."""
        with self._guard:
            self._held.add(lease)
            if self._thread is None:
                self._stop.clear()
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def remove(self, lease: HeldLease) -> None:
        """Stop renewing it."""
        with self._guard:
            self._held.discard(lease)

    def stop(self) -> None:
        """End the thread."""
        with self._guard:
            thread, self._thread = self._thread, None
            self._stop.set()
        if thread is not None:
            thread.join(timeout=10)

    def _run(self) -> None:
        asyncio.run(self._renew_until_stopped())

    async def _renew_until_stopped(self) -> None:
        engine = self._create_engine()
        try:
            while not self._stop.is_set():
                with self._guard:
                    held = [lease for lease in self._held if lease.reason != LEASE_LOST]
                now = monotonic()
                for lease in held:
                    if now - lease.tried_at >= _renew_every(lease):
                        await self._renew(engine, lease)
                # A lease that is added meanwhile is due later than this, as none is renewed in its first moments.
                pause = min((_renew_every(lease) for lease in held), default=_LONGEST_PAUSE_SECONDS)
                await asyncio.to_thread(self._stop.wait, min(pause / 3, _LONGEST_PAUSE_SECONDS / 4))
        finally:
            await engine.dispose()

    async def _renew(self, engine: AsyncEngine, lease: HeldLease) -> None:
        started = lease.tried_at = monotonic()
        fence = lease.fence
        try:
            fail_at("lease.renew_lost")
            async with SqlUnitOfWork(lambda: engine, PLATFORM, Horizon()) as unit:
                reason = await unit.runs.renew(lease.run_id, fence, lease=lease.lease)
                await unit.commit()
        except (PlatformError, SQLAlchemyError, OSError):
            return  # The next round tries again; the holder's own clock ends the lease in time.
        if reason is None:
            lease.renewed_at = started
        elif fence == lease.fence and lease.reason is None:
            lease.reason = LEASE_LOST if reason == "fenced" else reason


def _renew_every(lease: HeldLease) -> float:
    """Seconds between renewals: well before the lease is over, and soon enough to hear of a cancel (C1)."""
    return min(lease.lease.total_seconds() / 3, 3.0)
