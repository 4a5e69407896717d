"""The port to the platform's own records: one transaction at a time, committed by the use case."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from domain.events import Event
from domain.identity.principal import Principal
from domain.ports.identity import IIdentityRecords
from domain.runs.run import Finish, Ring, Run, RunState, Transition


@dataclass(frozen=True)
class StoredDocument:
    """A document as it was put, with its revision (1 for the first) and when."""

    name: str
    revision: int
    document: Mapping[str, Any]
    updated_by: str
    updated_at: datetime


@dataclass(frozen=True)
class Page:
    """Items of a keyset page and the cursor of the next one, None at the end."""

    items: Sequence[Any]
    next_cursor: str | None


class IDocumentRecords(ABC):
    """Named, revisioned documents of one kind (pipelines or connections)."""

    @abstractmethod
    async def get(self, organization: str, name: str) -> StoredDocument | None:
        """Return the latest revision."""

    @abstractmethod
    async def page(
        self, organization: str, *, after: str | None, limit: int, most_characters: int | None = None
    ) -> Page:
        """Return documents ordered by name: one at least, then no more than have so many characters together."""

    @abstractmethod
    async def parts(self, organization: str, paths: Sequence[Sequence[str]]) -> Mapping[str, Sequence[Any]]:
        """By the names of all documents, in order, what stands at some places in them; the rest is not read."""

    @abstractmethod
    async def latest(self, organization: str, names: Sequence[str]) -> Mapping[str, int]:
        """The latest revisions of those of these documents that there are."""

    @abstractmethod
    async def hold(self, organization: str) -> None:
        """Have whoever writes documents of an organization, of whatever kind, wait until this unit ends."""

    @abstractmethod
    async def revisions(
        self,
        organization: str,
        name: str,
        *,
        before: int | None = None,
        limit: int | None = None,
        most_characters: int | None = None,
    ) -> Sequence[StoredDocument]:
        """Return the revisions before one, or all, newest first; bounded like a page."""

    @abstractmethod
    async def put(self, organization: str, name: str, document: Mapping[str, Any], actor: str) -> StoredDocument:
        """Store a new revision; an equal document keeps the old one."""

    @abstractmethod
    async def delete(self, organization: str, name: str) -> bool:
        """Forget a document; say whether there was one. Its runs stay."""


class IRunRecords(ABC):
    """Runs and their claims. The row is the truth about a run."""

    @abstractmethod
    async def insert_many(self, asked: Sequence[Run]) -> None:
        """Store queued runs, each with its first transition."""

    async def insert(self, run: Run) -> None:
        """Store a queued run."""
        await self.insert_many([run])

    @abstractmethod
    async def caused_by(self, causes: Sequence[str]) -> set[tuple[str, str]]:
        """Return (pipeline, causing run) of the runs that exist already."""

    @abstractmethod
    async def get(self, organization: str, run_id: str) -> Run | None:
        """Return a run."""

    @abstractmethod
    async def page(
        self,
        organization: str,
        *,
        pipeline: str | None,
        state: RunState | None,
        after: str | None,
        limit: int,
        most_characters: int | None = None,
    ) -> Page:
        """Return runs, newest first: one at least, then no more than have so many characters together."""

    @abstractmethod
    async def claim_many(self, run_ids: Sequence[str], *, owner: str, lease: timedelta) -> Sequence[Run]:
        """Claim those runs that are queued and due or whose lease has expired, raising their pipelines' fences. Left
        out is what cannot be claimed: not due, held by another, terminal, or in a lane that another run holds.
        """

    async def claim(self, run_id: str, *, owner: str, lease: timedelta) -> Run | None:
        """Claim one run, or None."""
        return next(iter(await self.claim_many([run_id], owner=owner, lease=lease)), None)

    @abstractmethod
    async def raise_fence(self, run_id: str, fence: int, *, above: int) -> int | None:
        """Claim again above a destination's fence; None if `fence` is not the claim any more."""

    @abstractmethod
    async def renew(self, run_id: str, fence: int, *, lease: timedelta) -> str | None:
        """Prolong a lease; the reason to stop (`fenced`, `cancelled`), or None to go on."""

    @abstractmethod
    async def store_read_sets(self, read_sets: Mapping[tuple[str, int], Mapping[str, Any]]) -> Sequence[str]:
        """Keep the plans of claimed runs, by (run id, fence); return the ids that were not fenced."""

    async def store_read_set(self, run_id: str, fence: int, read_set: Mapping[str, Any]) -> bool:
        """Keep the plan of one claimed run; False when fenced."""
        return run_id in await self.store_read_sets({(run_id, fence): read_set})

    @abstractmethod
    async def finish_many(self, finishes: Sequence[Finish]) -> Sequence[Run]:
        """Move claimed runs to their ends; return those that were not fenced, as they stand now."""

    async def finish(
        self,
        run_id: str,
        fence: int,
        state: RunState,
        *,
        reason: str,
        report: Mapping[str, Any] | None,
        error: Mapping[str, Any] | None,
    ) -> bool:
        """Move one claimed run to a terminal state; False when fenced."""
        return bool(await self.finish_many([Finish(run_id, fence, state, reason, report, error)]))

    @abstractmethod
    async def release(
        self, run_id: str, fence: int, *, reason: str, pause: timedelta | None = None, is_retry: bool = False
    ) -> bool:
        """Give a claimed run back to the queue, due after a pause; False when fenced."""

    @abstractmethod
    async def note_progress(self, run_id: str, fence: int, *, progress: int) -> int | None:
        """Count a claim that begins where an earlier one did; return how many in a row, None when fenced."""

    @abstractmethod
    async def note(self, run_id: str, fence: int, *, reason: str) -> bool:
        """Write why a claimed run stands where it stands (`sealing`); False when fenced."""

    @abstractmethod
    async def request_cancel(self, organization: str, run_id: str, actor: str) -> RunState | None:
        """Cancel a run that was never claimed; flag any other unfinished one. None when unknown."""

    @abstractmethod
    async def transitions(self, organization: str, run_id: str) -> Sequence[Transition]:
        """Return the run's history, or the newest of a long one, oldest first."""

    @abstractmethod
    async def claimable(self, *, unrung_since: timedelta, limit: int) -> Sequence[Ring]:
        """Return queued, due runs not rung lately and running ones whose lease is over, the longest waiting first."""

    @abstractmethod
    async def stamp_rung(self, run_ids: Sequence[str], *, has_rung: bool = True) -> None:
        """Remember that the doorbell was rung, or that nobody came."""

    @abstractmethod
    async def forget_rings(self) -> None:
        """Take every queued run as not rung for, those that wait for their lanes too."""

    @abstractmethod
    async def next_in_lanes(self, run_ids: Sequence[str]) -> Sequence[Ring]:
        """Wake the oldest queued run of each lane that these runs have left, and return it to be rung for."""

    @abstractmethod
    async def last_of(self, organization: str, pipeline: str) -> Run | None:
        """Return the newest run of a pipeline."""

    @abstractmethod
    async def unfinished(self, organization: str, pipeline: str, lane: str) -> Run | None:
        """Return the oldest unfinished run of a lane, preferring the claimed one."""

    @abstractmethod
    async def holder(self, organization: str, pipeline: str, lane: str) -> Run | None:
        """Return the run that works in a lane under a living lease, or waits to try again; None when nobody does."""

    @abstractmethod
    async def forget_plans(self, organization: str, pipeline: str, lane: str) -> None:
        """Let the unfinished runs of a lane plan anew when they are claimed."""

    @abstractmethod
    async def next_fence(self, organization: str, pipeline: str, *, above: int = 0) -> int:
        """Raise the pipeline's fence, above a destination's too, for work outside a run (reset) and return it."""


@dataclass(frozen=True)
class StoredEvent:
    """An event of the outbox."""

    id: int
    organization: str
    event_type: str
    payload: Mapping[str, Any]
    created_at: datetime


class IEventOutbox(ABC):
    """Events, committed with the state that caused them."""

    @abstractmethod
    async def add(self, *told: Event) -> None:
        """Store events."""

    @abstractmethod
    async def unsent(self, *, limit: int) -> Sequence[StoredEvent]:
        """Return events that no subscriber has been told of, oldest first, without those another replica is telling."""

    @abstractmethod
    async def of_run(self, organization: str, run_id: str, *, newest: int) -> Sequence[StoredEvent]:
        """Return the newest stored events of a run, the oldest of them first."""

    @abstractmethod
    async def mark_sent(self, ids: Sequence[int]) -> None:
        """Remember that events were told."""


class IAuditRecords(ABC):
    """Who did what, kept for good."""

    @abstractmethod
    async def add_many(self, deeds: Sequence[tuple[Principal, str, str]]) -> None:
        """Store lines of (principal, action, subject) in the transaction of the deeds."""

    async def add(self, principal: Principal, action: str, subject: str) -> None:
        """Store one line."""
        await self.add_many([(principal, action, subject)])


@dataclass(frozen=True)
class WorkerRecord:
    """A process of the installation, as it last said of itself. `roles` are `api`, `worker` or both."""

    id: str
    roles: str
    host: str
    process: str
    version: str
    concurrency: int
    running: int
    state: str
    drain_requested: bool = False
    started_at: datetime | None = None


class IWorkerRecords(ABC):
    """The processes that serve and work, by their heartbeats."""

    @abstractmethod
    async def beat(self, worker: WorkerRecord) -> bool:
        """Say that a process lives; return whether it was asked to drain."""

    @abstractmethod
    async def remove(self, worker_id: str) -> None:
        """Forget a process that has ended well."""

    @abstractmethod
    async def seen_within(self, age: timedelta) -> Sequence[WorkerRecord]:
        """Return the processes that were heard of lately."""

    @abstractmethod
    async def request_drain(self, worker_id: str) -> bool:
        """Ask a process to finish what it has and to stop; False when unknown."""


class IFollowerRecords(ABC):
    """Which pipelines run after which."""

    @abstractmethod
    async def put(self, organization: str, pipeline: str, after: Sequence[str]) -> None:
        """Replace what a pipeline runs after."""

    @abstractmethod
    async def of(self, names: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[str]]:
        """Return the followers of (organization, pipeline) pairs."""


class IUnitOfWork(ABC):
    """One transaction over the platform's records; entered with `async with`.

    1. Nothing is visible to others before `commit`; leaving without it rolls everything back.
    2. A claim raises the pipeline's fence, and a worker's write under an older fence changes nothing.
    3. At most one claimed, unfinished run exists per (organization, pipeline, lane).
    4. A terminal state absorbs: no later move changes it.
    5. A lease that has run out, or whose process is gone from this host, can be claimed by another.
    6. A record of one organization is not found from another, and cannot refer to one.
    7. State and its events commit together.
    8. The connection is returned whatever happens.
    9. A run exists once per (pipeline, causing run).
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


class ILease(ABC):
    """A claim that is being renewed in the background."""

    @abstractmethod
    def stop_reason(self) -> str | None:
        """Why the holder must stop now (`lease_lost`, `cancelled`), or None; costs nothing to ask."""

    @abstractmethod
    def moved_to(self, fence: int) -> None:
        """Go on renewing under a raised fence."""


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
    def unit(self) -> IUnitOfWork:
        """Start a unit of work."""

    @abstractmethod
    def view(self) -> IUnitOfWork:
        """Start a unit of work that only reads and has nothing to commit: it keeps nobody from writing, nor waits for
        them.
        """

    @abstractmethod
    def hold_lease(self, run_id: str, fence: int, *, lease: timedelta) -> AbstractAsyncContextManager[ILease]:
        """Renew a claim in a thread and connection of its own until the block ends."""

    @abstractmethod
    async def changes(self) -> int:
        """A number that differs after another process wrote, where the database can tell cheaply; else always 0."""
