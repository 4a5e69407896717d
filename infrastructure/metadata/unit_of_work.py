"""IUnitOfWork on SQLAlchemy: one connection, one transaction."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import ConflictError, PlatformError
from domain.events import Event
from domain.identity.principal import Principal
from domain.ports.unit_of_work import (
    IAuditRecords,
    IEventOutbox,
    IUnitOfWork,
    StoredEvent,
)
from infrastructure.metadata.documents import SqlDocumentRecords
from infrastructure.metadata.identity import SqlIdentityRecords
from infrastructure.metadata.records_errors import is_damaged, records_error
from infrastructure.metadata.runs import SqlRunRecords
from infrastructure.metadata.tables import (
    audit,
    connection_revisions,
    connections,
    events,
    pipeline_revisions,
    pipelines,
)
from infrastructure.metadata.workers import SqlFollowerRecords, SqlWorkerRecords

ONLY_READS = "only_reads"
"""The option of a connection by which an engine begins its transactions without a lock that writers take."""


class SqlUnitOfWork(IUnitOfWork):
    """Begins when entered; leaving without `commit` rolls back. A view only reads."""

    def __init__(
        self,
        engine: Callable[[], AsyncEngine],
        on_trouble: Callable[[PlatformError], None] = lambda _error: None,
        *,
        is_view: bool = False,
    ) -> None:
        self._engine = engine
        self._on_trouble = on_trouble
        self._is_view = is_view
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        connection = self._engine().connect()
        try:
            await connection.start()
            if self._is_view:
                await connection.execution_options(**{ONLY_READS: True})
            await connection.begin()
        except BaseException as error:
            if connection.sync_connection is not None:  # One that was never started cannot be closed.
                await connection.close()
            # Drivers have errors of their own for each way in which a server cannot be talked to.
            if isinstance(error, Exception) and not isinstance(error, PlatformError):
                raise records_error(error) from error
            raise
        self._connection = connection
        self.pipelines = SqlDocumentRecords(connection, pipelines, pipeline_revisions)
        self.connections = SqlDocumentRecords(connection, connections, connection_revisions)
        self.runs = SqlRunRecords(connection)
        self.identity = SqlIdentityRecords(connection)
        self.events = SqlEventOutbox(connection)
        self.audit = SqlAuditRecords(connection)
        self.workers = SqlWorkerRecords(connection)
        self.followers = SqlFollowerRecords(connection)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
        if isinstance(error, IntegrityError):
            raise ConflictError(
                "The records refuse this: a name is taken or something it refers to is gone."
            ) from error
        if error is not None and (_is_away(error) or is_damaged(error)):
            trouble = records_error(error)
            self._on_trouble(trouble)
            raise trouble from error

    async def commit(self) -> None:
        assert self._connection is not None
        assert not self._is_view
        await self._connection.commit()


class SqlEventOutbox(IEventOutbox):
    """Events in the transaction of the state that caused them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, *told: Event) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "org_id": event.organization,
                "event_type": event.event_type,
                "run_id": event.run_id,
                "payload": event.payload(),
                "created_at": now,
            }
            for event in told
        ]
        if rows:
            await self._connection.execute(insert(events), rows)

    async def unsent(self, *, limit: int) -> Sequence[StoredEvent]:
        query = select(events).where(events.c.sent_at.is_(None)).order_by(events.c.id).limit(limit)
        # Another replica tells what it has locked; nobody waits for it.
        rows = (await self._connection.execute(query.with_for_update(skip_locked=True))).all()
        return [_event(row) for row in rows]

    async def of_run(self, organization: str, run_id: str, *, newest: int) -> Sequence[StoredEvent]:
        query = select(events).where(events.c.org_id == organization, events.c.run_id == run_id)
        rows = (await self._connection.execute(query.order_by(events.c.id.desc()).limit(newest))).all()
        return [_event(row) for row in reversed(rows)]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        if ids:
            await self._connection.execute(update(events).where(events.c.id.in_(ids)).values(sent_at=datetime.now(UTC)))


def _event(row: Row[Any]) -> StoredEvent:
    return StoredEvent(row.id, row.org_id, row.event_type, row.payload, row.created_at)


class SqlAuditRecords(IAuditRecords):
    """The audit trail."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add_many(self, deeds: Sequence[tuple[Principal, str, str]]) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "org_id": principal.organization,
                "subject": principal.subject,
                "action": action,
                "object": subject[:200],
                "at": now,
            }
            for principal, action, subject in deeds
        ]
        await self._connection.execute(insert(audit), rows)


def _is_away(error: BaseException | None) -> bool:
    """Say whether an error means that the server is gone, going, or has no room."""
    if isinstance(error, OperationalError | InterfaceError | OSError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return error.connection_invalidated or state.startswith(("08", "28", "3D", "53", "57P", "25P03", "25006", "42501"))
