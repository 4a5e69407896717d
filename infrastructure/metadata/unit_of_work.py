"""IUnitOfWork on SQLAlchemy: one connection, one transaction."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import ConflictError, PlatformError
from domain.identity.principal import Principal
from domain.identity.scope import Scope
from domain.ports.records.audit import IAuditRecords
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.runs.work import WorkKind
from infrastructure.clock import utc_now
from infrastructure.metadata.documents import SqlDocumentRecords
from infrastructure.metadata.events import Horizon, SqlEventOutbox
from infrastructure.metadata.identity import SqlIdentityRecords
from infrastructure.metadata.records_errors import is_damaged, records_error
from infrastructure.metadata.runs import SqlRunRecords
from infrastructure.metadata.tables import (
    audit,
    connection_revisions,
    connections,
    pipeline_revisions,
    pipelines,
)
from infrastructure.metadata.workers import SqlFollowerRecords, SqlWorkerRecords

ONLY_READS = "only_reads"
"""The option of a connection by which an engine begins its transactions without a lock that writers take."""


class SqlUnitOfWork(IUnitOfWork):
    """Begins when entered; leaving without `commit` rolls back."""

    def __init__(
        self,
        engine: Callable[[], AsyncEngine],
        scope: Scope,
        horizon: Horizon,
        on_trouble: Callable[[PlatformError], None] = lambda _error: None,
        *,
        only_reads: bool = False,
    ) -> None:
        self._engine = engine
        self._scope = scope
        self._horizon = horizon
        self._on_trouble = on_trouble
        self._only_reads = only_reads
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> Self:
        connection = self._engine().connect()
        try:
            await connection.start()
            if self._only_reads:
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
        scope = self._scope
        self.pipelines = SqlDocumentRecords(connection, scope, pipelines, pipeline_revisions, WorkKind.PIPELINE)
        self.connections = SqlDocumentRecords(connection, scope, connections, connection_revisions)
        self.runs = SqlRunRecords(connection, scope)
        self.identity = SqlIdentityRecords(connection, scope)
        self.events = SqlEventOutbox(connection, scope, self._horizon)
        self.audit = SqlAuditRecords(connection, scope)
        self.workers = SqlWorkerRecords(connection)
        self.followers = SqlFollowerRecords(connection, scope)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            except (DBAPIError, OSError) as lost:
                if error is None and not _is_away(lost):
                    raise
                error = error or lost  # There is nothing any more that could be rolled back.
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
        assert not self._only_reads
        await self._connection.commit()


class SqlAuditRecords(IAuditRecords):
    """The audit trail."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self._connection = connection
        self._scope = scope

    async def add_many(self, deeds: Sequence[tuple[Principal, str, str]]) -> None:
        self._scope.admit(*(principal.organization for principal, _, _ in deeds))
        now = utc_now()
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
