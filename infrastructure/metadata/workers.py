"""Processes of the installation and who follows whom, on SQLAlchemy."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.identity.scope import Scope
from domain.ports.records.followers import IFollowerRecords
from domain.ports.records.workers import IWorkerRecords, WorkerRecord
from infrastructure.clock import utc_now
from infrastructure.metadata.clocks import wall_clock
from infrastructure.metadata.tables import followers, workers

_FORGET_AFTER_SECONDS = 3600.0


class SqlWorkerRecords(IWorkerRecords):
    """Heartbeats by the control database's clock."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def beat(self, worker: WorkerRecord) -> bool:
        values = {
            "roles": worker.roles,
            "host": worker.host,
            "process": worker.process,
            "version": worker.version,
            "concurrency": worker.concurrency,
            "running": worker.running,
            "state": worker.state,
            "seen": wall_clock(self._connection),
        }
        known = await self._connection.execute(
            update(workers).where(workers.c.id == worker.id).values(values).returning(workers.c.drain_requested)
        )
        wanted = known.scalar()
        if wanted is None:
            await self._connection.execute(
                insert(workers).values(id=worker.id, drain_requested=False, started_at=utc_now(), **values)
            )
            await self._connection.execute(
                delete(workers).where(workers.c.seen < wall_clock(self._connection) - _FORGET_AFTER_SECONDS)
            )
        return bool(wanted)

    async def remove(self, worker_id: str) -> None:
        await self._connection.execute(delete(workers).where(workers.c.id == worker_id))

    async def seen_within(self, age: timedelta) -> Sequence[WorkerRecord]:
        query = (
            select(workers)
            .where(workers.c.seen >= wall_clock(self._connection) - age.total_seconds())
            .order_by(workers.c.id)
        )
        return [
            WorkerRecord(
                id=row.id,
                roles=row.roles,
                host=row.host,
                process=row.process,
                version=row.version,
                concurrency=row.concurrency,
                running=row.running,
                state=row.state,
                drain_requested=row.drain_requested,
                started_at=row.started_at,
            )
            for row in (await self._connection.execute(query)).all()
        ]

    async def request_drain(self, worker_id: str) -> bool:
        found = await self._connection.execute(
            update(workers).where(workers.c.id == worker_id).values(drain_requested=True)
        )
        return found.rowcount == 1


class SqlFollowerRecords(IFollowerRecords):
    """`schedule.after` by the pipeline that is waited for."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self._connection = connection
        self._scope = scope

    async def put(self, organization: str, pipeline: str, after: Sequence[str]) -> None:
        self._scope.admit(organization)
        mine = (followers.c.org_id == organization, followers.c.pipeline == pipeline)
        await self._connection.execute(delete(followers).where(*mine))
        if after:
            rows = [{"org_id": organization, "pipeline": pipeline, "after": name} for name in after]
            await self._connection.execute(insert(followers), rows)

    async def of(self, names: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[str]]:
        self._scope.admit(*(organization for organization, _ in names))
        if not names:
            return {}
        query = select(followers).where(tuple_(followers.c.org_id, followers.c.after).in_(names))
        found: dict[tuple[str, str], list[str]] = {}
        for row in (await self._connection.execute(query.order_by(followers.c.pipeline))).all():
            found.setdefault((row.org_id, row.after), []).append(row.pipeline)
        return found
