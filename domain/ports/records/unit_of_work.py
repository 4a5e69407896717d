"""The port to the platform's own records: one transaction at a time, committed by the use case."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from types import TracebackType
from typing import Self

from domain.identity.scope import Scope
from domain.ports.records.audit import IAuditRecords
from domain.ports.records.documents import IDocumentRecords
from domain.ports.records.events import IEventOutbox
from domain.ports.records.followers import IFollowerRecords
from domain.ports.records.identity import IIdentityRecords
from domain.ports.records.runs import ILease, IRunRecords
from domain.ports.records.workers import IWorkerRecords


class IUnitOfWork(ABC):
    """One transaction over the platform's records; entered with `async with`.

    1. Nothing is visible to others before `commit`; leaving without it rolls everything back.
    2. A claim raises the fence of the work, and a worker's write under an older fence changes nothing.
    3. At most one claimed, unfinished run exists per (organization, work, lane).
    4. A terminal state absorbs: no later move changes it.
    5. A lease that has run out, or whose process is gone from this host, can be claimed by another.
    6. A record of one organization is not found from another, and cannot refer to one.
    7. State and its events commit together.
    8. The connection is returned whatever happens.
    9. A run exists once per (work, causing run).
    10. What is done to a set of runs is done to each as if it were alone: one that is fenced leaves the others.
    """

    pipelines: IDocumentRecords
    connections: IDocumentRecords
    runs: IRunRecords
    identity: IIdentityRecords
    events: IEventOutbox
    audit: IAuditRecords
    workers: IWorkerRecords
    followers: IFollowerRecords

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def commit(self) -> None:
        """Make everything durable."""


class IRecords(ABC):
    """The door to the platform's database: opened once, hands out units of work."""

    @abstractmethod
    async def open(self) -> None:
        """Connect and check that the schema is the expected revision.

        Raises:
            UnavailableError: unreachable, or migrations are pending (`records.behind`).
        """

    @abstractmethod
    async def close(self) -> None:
        """Release every connection; harmless when nothing is open."""

    @abstractmethod
    async def health_check(self) -> str | None:
        """Name the trouble, or None."""

    @abstractmethod
    async def upgrade(self) -> str:
        """Bring the schema to the newest revision, under a lock, and return it."""

    @abstractmethod
    async def current(self) -> tuple[str | None, str]:
        """Return the schema's revision and the newest known."""

    @abstractmethod
    def unit(self, scope: Scope) -> IUnitOfWork:
        """Start a unit of work in a scope: to what is another organization's it is as if that were not there, and what
        names another organization raises `ScopeError`.
        """

    @abstractmethod
    def read(self, scope: Scope) -> IUnitOfWork:
        """Start a unit of work that only reads and has nothing to commit: it keeps nobody from writing, nor waits for
        them.
        """

    @abstractmethod
    def hold_lease(self, run_id: str, fence: int, *, lease: timedelta) -> AbstractAsyncContextManager[ILease]:
        """Renew a claim in a thread and connection of its own until the block ends."""

    @abstractmethod
    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many there may be; costs nothing to ask."""

    @abstractmethod
    async def changes(self) -> int:
        """A number that differs after another process wrote, where the database can tell cheaply; else always 0."""
