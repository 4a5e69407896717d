"""Reading sessions of Postgres: what is read is locked before it is looked at, and sessions of one snapshot lock it
together.

TRUNCATE and whatever rewrites a table show through older snapshots: a reader that saw the table before would find it
empty. So each session holds ACCESS SHARE on all it reads, has made sure that none of it was replaced between its
snapshot and its lock, and keeps the lock for as long as it reads. A session that came for its lock later than the
others of its snapshot could queue behind somebody who waits for them: they all take it at the beginning, within a
moment, or all give it up and begin again behind whoever waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from domain.errors import SourceChangedError, StoreUnavailableError
from domain.pipelines.spec import SourceSpec
from infrastructure.stores.postgres.connection import NOBODY, READER, Readers
from infrastructure.stores.postgres.meter import metered
from infrastructure.stores.postgres.predecessors import end_readers
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.tabular.arrow import row_too_large
from infrastructure.threads import OneThread

BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_ATTEMPTS = 10
_QUEUE_MILLISECONDS = 500
_CANCELED = "57014"
# It is held idle for as long as others read.
_MAY_BE_IDLE = "SELECT set_config('idle_in_transaction_session_timeout', '0', true)"
# The file of a table as the snapshot knows it, beside the one that the lock is on. Only what was rewritten has another;
# what was made since the snapshot is not in its catalog. An index may come and go: it is read as the snapshot needs it.
_HELD = (
    "SELECT coalesce(bool_or(c.oid IS NULL OR (c.relfilenode <> 0 AND c.relfilenode <> "
    "pg_relation_filenode(l.relation))), false), coalesce(string_agg(l.relation::text, ' ' ORDER BY l.relation), "
    "''), coalesce(bool_or(c.relkind = 'f'), false) FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation WHERE "
    "l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database d WHERE "
    "d.datname = current_database()) AND l.relation >= 16384 AND pg_index_has_property(l.relation, 'clusterable') IS "
    "NULL AND c.relkind IS DISTINCT FROM 't'"
)


@dataclass(frozen=True)
class Held:
    """The relations that a session has locked, and whether one of them is not the one that its snapshot shows."""

    is_stale: bool
    relations: str
    has_foreign: bool

    def check_same(self, other: "Held") -> None:
        """Refuse to read other relations than those of the snapshot's other readers, or than before.

        Raises:
            SourceChangedError: a partition or child was attached meanwhile, or a name stands for something else.
        """
        if self.is_stale or self.relations != other.relations:
            raise SourceChangedError(
                "What is read is made of other tables than when the reading began: a partition was attached, or a "
                "table put in the place of another. Read it again with --full-refresh, or with 'headrace pipelines "
                "reset' from where you say.",
            )


Connect = Callable[[str], AbstractAsyncContextManager[Any]]
Sessions = Callable[[str], AbstractAsyncContextManager[tuple[PostgresSession, OneThread]]]


class Reading:
    """A session that keeps a snapshot and its locks, and the connection beside it on which rows pass undecoded.

    A shared one has joined the snapshot of others and holds what they hold, so it cannot begin again by itself.
    """

    def __init__(
        self,
        session: PostgresSession,
        thread: OneThread,
        connect: Connect,
        *,
        name: str = READER,
        shared: str | None = None,
        held: Held | None = None,
    ) -> None:
        self.session = session
        self.thread = thread
        self._connect = connect
        self._name = name
        self._shared = shared
        self._held = held
        self._is_kept = False
        self._connection: Any = None

    @property
    def held(self) -> Held:
        """What is locked since the source was first selected."""
        assert self._held is not None
        return self._held

    def begin(self) -> None:
        """Start a transaction, in the shared snapshot if there is one; blocking."""
        self._is_kept = False
        self.session.end()
        self.session.execute(BEGIN_READING)
        if self._shared is not None:
            self.session.execute(f"SET LOCAL lock_timeout = {_QUEUE_MILLISECONDS}")
            self.session.execute(f"SET TRANSACTION SNAPSHOT '{self._shared}'")

    def locked(self, source: SourceSpec) -> Selection:
        """Describe a source as the first thing, holding all that it reads; blocking.

        Raises:
            SourceChangedError: it is not what the snapshot's other readers hold.
            StoreUnavailableError: it is replaced again and again (`source.busy`).
        """
        for _ in range(_ATTEMPTS):
            selection = Selection.of(self.session, source)
            held = Held(*self.session.execute(_HELD)[0])
            if self._shared is not None and self._held is not None:
                held.check_same(self._held)
            if not held.is_stale:
                self._held = held
                return selection
            self.begin()  # It was replaced while this waited for its lock; the lock is ours to have now.
        raise _busy()

    def selected(self, source: SourceSpec) -> Selection:
        """Describe a source, the same each time; blocking.

        Raises:
            SourceChangedError: it is made of other tables than when this was asked before.
        """
        if not self._is_kept:
            selection = self.locked(source)
            self._keep()
            return selection
        # Back to the locks of the beginning: what a function of a query has read since does not count.
        self.session.execute("ROLLBACK TO SAVEPOINT reading")
        selection = Selection.of(self.session, source)
        Held(*self.session.execute(_HELD)[0]).check_same(self.held)
        return selection

    def _keep(self) -> None:
        self.session.execute("SAVEPOINT reading")
        self._is_kept = True

    def _let_go(self) -> None:
        """Back to where a snapshot can be exported."""
        if self._is_kept:
            self.session.execute("ROLLBACK TO SAVEPOINT reading")
            self.session.execute("RELEASE SAVEPOINT reading")
            self._is_kept = False

    def exported(self) -> str:
        """Name the snapshot for others, before anything was selected; blocking."""
        self.session.execute(_MAY_BE_IDLE)
        return self._shared or str(self.session.execute("SELECT pg_export_snapshot()")[0][0])

    async def prepare(self, source: SourceSpec, stack: AsyncExitStack, *, undecoded: bool) -> None:
        """Take every lock that reading the source in a shared snapshot needs."""
        selection = await self.thread.call(self.locked, source)
        name = await self.thread.call(self.exported)
        await self.thread.call(self._keep)
        if undecoded:
            self._connection = await stack.enter_async_context(self._joined(name, selection))

    @asynccontextmanager
    async def passing(self, source: SourceSpec) -> AsyncIterator[tuple[Selection, Any]]:
        """Select a source on a connection beside the session, in its snapshot.

        Raises:
            StoreUnavailableError: others keep coming between the two sessions' locks (`source.busy`).
        """
        if self._connection is not None:
            connection, self._connection = self._connection, None  # After an error it is not used again.
            yield await self.thread.call(self.selected, source), connection
            await connection.execute("ROLLBACK TO SAVEPOINT reading")
            self._connection = connection
            return
        async with AsyncExitStack() as stack:
            yield await self._beside(source, stack)

    async def _beside(self, source: SourceSpec, stack: AsyncExitStack) -> tuple[Selection, Any]:
        for _ in range(_ATTEMPTS):
            await self.thread.call(self._let_go)
            selection = await self.thread.call(self.locked, source)
            name = await self.thread.call(self.exported)
            try:
                connection = await stack.enter_async_context(self._joined(name, selection))
            except StoreUnavailableError as error:
                if error.code != "store.locked" or self._shared is not None:
                    raise
                await self.thread.call(self.begin)  # Whoever came between the two locks goes first.
                continue
            await self.thread.call(self._keep)
            return selection, connection
        raise _busy()

    @asynccontextmanager
    async def _joined(self, snapshot: str, selection: Selection) -> AsyncIterator[Any]:
        async with self._connect(self._name) as connection:
            await connection.execute(
                f"{BEGIN_READING}; SET LOCAL lock_timeout = {_QUEUE_MILLISECONDS}; SET TRANSACTION SNAPSHOT "
                f"'{snapshot}'; {_MAY_BE_IDLE}"
            )
            await bind(connection, selection.settings)
            # Without its values: not every type is one that asyncpg decodes.
            await connection.execute(f"SELECT * FROM {selection.text} LIMIT 0")
            Held(*await connection.fetchrow(_HELD)).check_same(self.held)
            await connection.execute("SAVEPOINT reading")
            yield connection

    async def copied(self, connection: Any, query: str, max_bytes: int) -> tuple[int, tuple[bytes, ...]] | None:
        """Copy a query's rows on a connection beside the session, in binary; None when they are more than so many
        bytes.

        The connection keeps its locks then too: it might not have them again before somebody who waits for them.

        Raises:
            WorkFailedError: one row is (`source.row_too_large`); the connection is gone.
        """
        chunks, size = list[bytes](), 0
        stopping: asyncio.Task[Any] | None = None

        async def gather(chunk: bytes) -> None:
            nonlocal size, stopping
            meter.taken()
            size += len(chunk)
            if size <= max_bytes:
                chunks.append(chunk)
            elif stopping is None:
                chunks.clear()
                # An error raised here would leave the driver waiting for an answer when this was the last chunk.
                stopping = asyncio.create_task(self._stop(connection))

        try:
            with metered(connection, max_bytes) as meter:
                done = await connection.copy_from_query(query, output=gather, format="binary")
        except BaseException as error:
            if meter.is_exceeded:
                await _ended(stopping)
                raise row_too_large(max_bytes) from error
            if stopping is None or getattr(error, "sqlstate", None) != _CANCELED:
                await _ended(stopping)
                raise
        if stopping is None:
            return int(done.split()[-1]), tuple(chunks)
        await stopping
        try:
            await connection.execute("ROLLBACK TO SAVEPOINT reading")
        except Exception as error:  # The copy had ended before it could be stopped.
            if getattr(error, "sqlstate", None) != _CANCELED:
                raise
            await connection.execute("ROLLBACK TO SAVEPOINT reading")
        return None

    async def _stop(self, connection: Any) -> None:
        """Cancel what a connection does, by way of one more: the session may be in the middle of something itself."""
        try:
            async with self._connect(self._name) as other:
                await other.execute("SELECT pg_cancel_backend($1::int)", connection.get_server_pid())
        except BaseException:
            connection.terminate()  # Else it would be read to its end.
            raise


@dataclass
class _Snapshot:
    """A snapshot that is held, and its readers that wait for a stream."""

    held: Held
    idle: list[Reading] = field(default_factory=list)


class SharedSnapshots:
    """The snapshots that a store holds for streams, each with as many sessions as read at a time."""

    def __init__(self, sessions: Sessions, connect: Connect) -> None:
        self._sessions = sessions
        self._connect = connect
        self._snapshots: dict[str, _Snapshot] = {}

    @asynccontextmanager
    async def hold(
        self, source: SourceSpec, readers: int, names: Readers = NOBODY, *, undecoded: bool
    ) -> AsyncIterator[str | None]:
        """Export a snapshot that shows a source, with its readers ready; None where it does not cover the source.

        Raises:
            StoreUnavailableError: others keep coming between the sessions' locks (`source.busy`).
        """
        async with AsyncExitStack() as stack:
            name = await self._exported(stack, source, readers, names, undecoded=undecoded)
            try:
                yield name
            finally:
                self._snapshots.pop(name or "", None)

    async def _exported(
        self, stack: AsyncExitStack, source: SourceSpec, readers: int, names: Readers, *, undecoded: bool
    ) -> str | None:
        for _ in range(_ATTEMPTS):
            async with AsyncExitStack() as trial:
                first = await self._first(trial, names)
                await first.thread.call(first.locked, source)
                if first.held.has_foreign:
                    return None  # Each session sees a foreign server at a moment of its own.
                name = await first.thread.call(first.exported)
                snapshot = _Snapshot(first.held)
                try:
                    for _ in range(readers):
                        reading = await self._another(trial, name, snapshot, names)
                        await reading.prepare(source, trial, undecoded=undecoded)
                        snapshot.idle.append(reading)
                except StoreUnavailableError as error:
                    if error.code not in ("store.locked", "snapshot.gone"):
                        raise
                    continue  # Whoever came between the locks goes first; or the session that exported was ended.
                stack.push_async_exit(trial.pop_all())
                self._snapshots[name] = snapshot
                return name
        raise _busy()

    async def _first(self, stack: AsyncExitStack, names: Readers) -> Reading:
        session, thread = await stack.enter_async_context(self._sessions(names.name))
        await thread.call(end_readers, session, names)
        reading = Reading(session, thread, self._connect, name=names.name)
        await thread.call(reading.begin)
        return reading

    async def _another(self, stack: AsyncExitStack, name: str, snapshot: _Snapshot | None, names: Readers) -> Reading:
        session, thread = await stack.enter_async_context(self._sessions(names.name))
        held = snapshot.held if snapshot is not None else None
        reading = Reading(session, thread, self._connect, name=names.name, shared=name, held=held)
        await thread.call(reading.begin)
        return reading

    @asynccontextmanager
    async def reading(self, name: str | None, names: Readers = NOBODY) -> AsyncIterator[Reading]:
        """Lend a reader of a snapshot, or one with a snapshot of its own."""
        snapshot = self._snapshots.get(name) if name is not None else None
        if snapshot is not None and snapshot.idle:
            reading = snapshot.idle.pop()
            yield reading
            if not (reading.thread.is_abandoned or reading.session.is_interrupted):
                snapshot.idle.append(reading)
            return
        async with AsyncExitStack() as stack:
            first = self._first(stack, names) if name is None else self._another(stack, name, snapshot, names)
            yield await first


async def _ended(task: asyncio.Task[Any] | None) -> None:
    """Give up what is not needed any more, and wait until it has."""
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


def _busy() -> StoreUnavailableError:
    return StoreUnavailableError(
        "What is read was being replaced each time that its lock was to be had; try again when that is over.",
        code="source.busy",
    )


async def bind(connection: Any, settings: Mapping[str, str]) -> None:
    """Set values that statements of this transaction read by `current_setting`, in one round trip."""
    if not settings:
        return
    calls = ", ".join(f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(settings)))
    await connection.fetchrow(f"SELECT {calls}", *(part for item in settings.items() for part in item))
