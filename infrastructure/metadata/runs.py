"""Runs, claims and leases on SQLAlchemy (contract, M1)."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Float, Row, and_, case, cast, func, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failpoints import fail_at
from domain.pipelines.run import Run, RunRequest, RunState, Transition
from domain.ports.unit_of_work import IRunRecords, Page
from infrastructure.metadata.leases import boot_time, is_gone
from infrastructure.metadata.tables import pipelines, run_transitions, runs

_UNFINISHED = (RunState.QUEUED.value, RunState.RUNNING.value)


class SqlRunRecords(IRunRecords):
    """Every write of a worker carries `state = 'running' AND fence = :mine` (R3)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    async def insert(self, run: Run) -> None:
        now = datetime.now(UTC)
        await self._connection.execute(
            insert(runs).values(
                org_id=run.organization,
                id=run.id,
                pipeline=run.pipeline,
                revision=run.revision,
                lane=run.lane,
                state=RunState.QUEUED.value,
                request={
                    "parameters": dict(run.request.parameters),
                    "limit": run.request.limit,
                    "full_refresh": run.request.full_refresh,
                },
                requested_by=run.requested_by,
                created_at=now,
            )
        )
        await self._note(run.organization, run.id, None, RunState.QUEUED, 0, run.requested_by, "requested")

    async def get(self, organization: str, run_id: str) -> Run | None:
        query = select(runs).where(runs.c.org_id == organization, runs.c.id == run_id)
        row = (await self._connection.execute(query)).first()
        return _run(row) if row else None

    async def page(
        self,
        organization: str,
        *,
        pipeline: str | None,
        state: RunState | None,
        after: str | None,
        limit: int,
    ) -> Page:
        query = select(runs).where(runs.c.org_id == organization).order_by(runs.c.id.desc()).limit(limit + 1)
        if pipeline is not None:
            query = query.where(runs.c.pipeline == pipeline)
        if state is not None:
            query = query.where(runs.c.state == state.value)
        if after is not None:
            query = query.where(runs.c.id < after)
        rows = (await self._connection.execute(query)).all()
        items = [_run(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def claim(self, run_id: str, *, owner: str, lease: timedelta) -> Run | None:
        before = await self._row(run_id)
        if before is None or before.state not in _UNFINISHED:
            return None
        if self._is_sqlite and before.state == RunState.RUNNING.value:
            await self._expire_if_gone(before)
        fence = await self._raise_pipeline_fence(before.org_id, before.pipeline)
        is_due = and_(runs.c.state == RunState.QUEUED.value, runs.c.not_before <= self._wall_clock())
        claim = (
            update(runs)
            .where(runs.c.id == run_id, or_(is_due, self._lease_is_over()))
            .values(
                state=RunState.RUNNING.value,
                fence=fence,
                attempt=runs.c.attempt + 1,
                lease_until=self._lease_clock() + lease.total_seconds(),
                lease_owner=owner,
                reason=None,
                started_at=func.coalesce(runs.c.started_at, literal(datetime.now(UTC), runs.c.started_at.type)),
            )
            .returning(runs)
        )
        try:
            async with self._connection.begin_nested():
                row = (await self._connection.execute(claim)).first()
        except IntegrityError:
            return None  # The lane has a claimed run already.
        if row is None:
            return None
        if before.state == RunState.RUNNING.value:
            await self._note(row.org_id, run_id, RunState.RUNNING, RunState.QUEUED, fence, owner, "lease_expired")
        await self._note(row.org_id, run_id, RunState.QUEUED, RunState.RUNNING, fence, owner, "claimed")
        fail_at("claim.after_update")
        return _run(row)

    async def raise_fence(self, run_id: str, fence: int, *, above: int) -> int | None:
        row = await self._row(run_id)
        if row is None or row.state != RunState.RUNNING.value or row.fence != fence:
            return None
        raised = max(above, fence) + 1
        await self._connection.execute(
            update(pipelines)
            .where(pipelines.c.org_id == row.org_id, pipelines.c.name == row.pipeline, pipelines.c.fence < raised)
            .values(fence=raised)
        )
        moved = await self._write(run_id, fence, {"fence": raised})
        if moved is None:
            return None
        actor = row.lease_owner or ""
        await self._note(row.org_id, run_id, RunState.RUNNING, RunState.RUNNING, raised, actor, "fence_raised")
        return raised

    async def renew(self, run_id: str, fence: int, *, lease: timedelta) -> str | None:
        row = await self._write(run_id, fence, {"lease_until": self._lease_clock() + lease.total_seconds()})
        if row is None:
            return "fenced"
        return "cancelled" if row.cancel_requested else None

    async def store_read_set(self, run_id: str, fence: int, read_set: Mapping[str, Any]) -> bool:
        return await self._write(run_id, fence, {"read_set": dict(read_set)}) is not None

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
        row = await self._write(
            run_id,
            fence,
            {
                "state": state.value,
                "reason": reason,
                "report": report,
                "error": error,
                "finished_at": datetime.now(UTC),
                "lease_until": None,
            },
        )
        if row is None:
            return False
        await self._note(row.org_id, run_id, RunState.RUNNING, state, fence, row.lease_owner or "", reason)
        return True

    async def release(self, run_id: str, fence: int, *, reason: str) -> bool:
        # A graceful release is no crash: the next claim's progress is compared with nothing (R4).
        given_back = {"state": RunState.QUEUED.value, "lease_until": None, "rung_at": None, "progress": -1}
        row = await self._write(run_id, fence, given_back)
        if row is None:
            return False
        # Coming back to the queue raises the fence, so the one who gave it back cannot write any more (R1).
        raised = await self._raise_pipeline_fence(row.org_id, row.pipeline)
        await self._note(row.org_id, run_id, RunState.RUNNING, RunState.QUEUED, raised, row.lease_owner or "", reason)
        return True

    async def note_progress(self, run_id: str, fence: int, *, progress: int) -> int | None:
        is_same = runs.c.progress == progress
        row = await self._write(
            run_id, fence, {"fruitless": case((is_same, runs.c.fruitless + 1), else_=0), "progress": progress}
        )
        return row.fruitless if row else None

    async def note(self, run_id: str, fence: int, *, reason: str) -> bool:
        row = await self._write(run_id, fence, {"reason": reason})
        if row is None:
            return False
        await self._note(row.org_id, run_id, RunState.RUNNING, RunState.RUNNING, fence, row.lease_owner or "", reason)
        return True

    async def request_cancel(self, organization: str, run_id: str, actor: str) -> RunState | None:
        run = await self.get(organization, run_id)
        if run is None or run.state.is_terminal:
            return run.state if run else None
        never_claimed = and_(runs.c.id == run_id, runs.c.state == RunState.QUEUED.value, runs.c.attempt == 0)
        cancelled = await self._connection.execute(
            update(runs)
            .where(never_claimed)
            .values(state=RunState.CANCELLED.value, reason="cancelled", finished_at=datetime.now(UTC))
        )
        if cancelled.rowcount == 1:
            await self._note(organization, run_id, RunState.QUEUED, RunState.CANCELLED, 0, actor, "cancelled")
            return RunState.CANCELLED
        await self._connection.execute(
            update(runs).where(runs.c.id == run_id, runs.c.state.in_(_UNFINISHED)).values(cancel_requested=True)
        )
        await self._note(organization, run_id, run.state, run.state, run.fence, actor, "cancel_requested")
        return run.state

    async def transitions(self, organization: str, run_id: str) -> Sequence[Transition]:
        table = run_transitions
        query = select(table).where(table.c.org_id == organization, table.c.run_id == run_id).order_by(table.c.id)
        rows = (await self._connection.execute(query)).all()
        return [Transition(row.run_id, row.before, row.after, row.fence, row.actor, row.reason, row.at) for row in rows]

    async def claimable(self, *, unrung_since: timedelta, limit: int) -> Sequence[tuple[str, str]]:
        if self._is_sqlite:
            held = await self._connection.execute(
                select(runs).where(runs.c.state == RunState.RUNNING.value, runs.c.lease_until > 0)
            )
            for row in held.all():
                await self._expire_if_gone(row)
        not_rung = or_(runs.c.rung_at.is_(None), runs.c.rung_at < self._wall_clock() - unrung_since.total_seconds())
        waiting = and_(runs.c.state == RunState.QUEUED.value, runs.c.not_before <= self._wall_clock(), not_rung)
        query = (
            select(runs.c.org_id, runs.c.id)
            .where(or_(waiting, self._lease_is_over()))
            .order_by(runs.c.created_at)
            .limit(limit)
        )
        return [(row.org_id, row.id) for row in (await self._connection.execute(query)).all()]

    async def stamp_rung(self, run_ids: Sequence[str]) -> None:
        if run_ids:
            await self._connection.execute(
                update(runs).where(runs.c.id.in_(run_ids)).values(rung_at=self._wall_clock())
            )

    async def last_of(self, organization: str, pipeline: str) -> Run | None:
        page = await self.page(organization, pipeline=pipeline, state=None, after=None, limit=1)
        return page.items[0] if page.items else None

    async def unfinished(self, organization: str, pipeline: str, lane: str) -> Run | None:
        query = (
            select(runs)
            .where(
                runs.c.org_id == organization,
                runs.c.pipeline == pipeline,
                runs.c.lane == lane,
                runs.c.state.in_(_UNFINISHED),
            )
            .order_by(runs.c.state.desc(), runs.c.id)
            .limit(1)
        )
        row = (await self._connection.execute(query)).first()
        return _run(row) if row else None

    async def next_fence(self, organization: str, pipeline: str) -> int:
        return await self._raise_pipeline_fence(organization, pipeline)

    async def _row(self, run_id: str) -> Row[Any] | None:
        return (await self._connection.execute(select(runs).where(runs.c.id == run_id))).first()

    async def _write(self, run_id: str, fence: int, values: Mapping[str, Any]) -> Row[Any] | None:
        mine = (runs.c.id == run_id, runs.c.state == RunState.RUNNING.value, runs.c.fence == fence)
        result = await self._connection.execute(update(runs).where(*mine).values(values).returning(runs))
        row: Row[Any] | None = result.first()
        return row

    async def _raise_pipeline_fence(self, organization: str, pipeline: str) -> int:
        raised = await self._connection.execute(
            update(pipelines)
            .where(pipelines.c.org_id == organization, pipelines.c.name == pipeline)
            .values(fence=pipelines.c.fence + 1)
            .returning(pipelines.c.fence)
        )
        return int(raised.scalar_one())

    async def _expire_if_gone(self, row: Row[Any]) -> None:
        """On one host a lease whose process is gone, or whose boot is another, is over at once (L2)."""
        if row.lease_owner and is_gone(row.lease_owner):
            await self._connection.execute(
                update(runs)
                .where(runs.c.id == row.id, runs.c.fence == row.fence, runs.c.state == RunState.RUNNING.value)
                .values(lease_until=0.0)
            )

    def _lease_is_over(self) -> ColumnElement[bool]:
        return and_(runs.c.state == RunState.RUNNING.value, runs.c.lease_until < self._lease_clock())

    def _lease_clock(self) -> ColumnElement[float]:
        """The control database's own clock; for SQLite, on one host, the time since boot."""
        return literal(boot_time()) if self._is_sqlite else self._wall_clock()

    def _wall_clock(self) -> ColumnElement[float]:
        if self._is_sqlite:
            return literal(time.time())
        return cast(func.extract("epoch", func.clock_timestamp()), Float)

    async def _note(
        self,
        organization: str,
        run_id: str,
        before: RunState | None,
        after: RunState,
        fence: int,
        actor: str,
        reason: str,
    ) -> None:
        await self._connection.execute(
            insert(run_transitions).values(
                org_id=organization,
                run_id=run_id,
                before=before.value if before else None,
                after=after.value,
                fence=fence,
                actor=actor[:200],
                reason=reason[:200],
                at=datetime.now(UTC),
            )
        )


def _run(row: Row[Any]) -> Run:
    request = row.request
    return Run(
        id=row.id,
        organization=row.org_id,
        pipeline=row.pipeline,
        revision=row.revision,
        lane=row.lane,
        state=RunState(row.state),
        request=RunRequest(request["parameters"], request["limit"], request["full_refresh"]),
        fence=row.fence,
        attempt=row.attempt,
        progress=row.progress,
        fruitless=row.fruitless,
        reason=row.reason,
        read_set=row.read_set,
        report=row.report,
        error=row.error,
        requested_by=row.requested_by,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
