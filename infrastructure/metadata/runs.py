"""Runs on SQLAlchemy: asked for, read, cancelled, looked for by the tender."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, update

from domain.ports.records.page import Page
from domain.ports.records.runs import IRunRecords, Waiting
from domain.runs.run import RETRY, Ring, Run, RunState, Transition
from domain.runs.work import WorkName
from infrastructure.clock import utc_now
from infrastructure.metadata.claim_statements import ALL_BUT_PLAN, QUEUED, RUNNING, UNFINISHED
from infrastructure.metadata.claims import SqlRunClaims, is_of, note, run_of, work_of
from infrastructure.metadata.scopes import named, within
from infrastructure.metadata.sizes import fitting, size_of
from infrastructure.metadata.tables import run_transitions, runs

_RING = (runs.c.org_id, runs.c.id, runs.c.trace)
_LARGE = (runs.c.request, runs.c.report, runs.c.error)


class SqlRunRecords(SqlRunClaims, IRunRecords):
    """All of the run records on one connection."""

    async def insert_many(self, asked: Sequence[Run]) -> None:
        self._scope.admit(*(run.organization for run in asked))
        now = utc_now()
        rows = [
            {
                "org_id": run.organization,
                "id": run.id,
                "work_kind": run.work.kind.value,
                "work_name": run.work.name,
                "revision": run.work.revision,
                "lane": run.lane,
                "state": RunState.QUEUED.value,
                "request": {**asdict(run.request), "parameters": dict(run.request.parameters)},
                "requested_by": run.requested_by,
                "cause": run.cause,
                "trace": run.trace,
                "correlation_id": run.correlation_id,
                "rung_at": 0.0,
                "created_at": now,
            }
            for run in asked
        ]
        await self._connection.execute(insert(runs), rows)
        await self._connection.execute(
            insert(run_transitions),
            [
                {
                    "org_id": run.organization,
                    "run_id": run.id,
                    "before": None,
                    "after": RunState.QUEUED.value,
                    "fence": 0,
                    "actor": run.requested_by[:200],
                    "reason": "requested",
                    "at": now,
                }
                for run in asked
            ],
        )

    async def caused_by(self, causes: Sequence[str]) -> set[tuple[WorkName, str]]:
        query = select(runs.c.work_kind, runs.c.work_name, runs.c.cause).where(
            runs.c.cause.in_(causes), within(self._scope, runs)
        )
        return {(work_of(row), row.cause) for row in (await self._connection.execute(query)).all()}

    async def get(self, organization: str, run_id: str) -> Run | None:
        self._scope.admit(organization)
        query = select(*ALL_BUT_PLAN).where(runs.c.org_id == organization, runs.c.id == run_id)
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

    async def page(
        self,
        organization: str,
        *,
        work: WorkName | None,
        state: RunState | None,
        after: str | None,
        limit: int,
        most_characters: int | None = None,
    ) -> Page:
        self._scope.admit(organization)
        query = select(*ALL_BUT_PLAN).where(runs.c.org_id == organization).order_by(runs.c.id.desc())
        if state is not None:
            query = query.where(_stands(state, work))
        elif work is not None:
            query = query.where(is_of(work))
        if after is not None:
            query = query.where(runs.c.id < after)
        if most_characters is not None:
            limit = await fitting(self._connection, query, _LARGE, most_characters, limit)
        rows = (await self._connection.execute(query.limit(limit + 1))).all()
        items = [run_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def request_cancel(self, organization: str, run_id: str, actor: str) -> RunState | None:
        run = await self.get(organization, run_id)
        if run is None or run.state.is_terminal:
            return run.state if run else None
        row = _Row(organization, run_id)
        never_claimed = and_(runs.c.id == run_id, runs.c.state == QUEUED, runs.c.attempt == 0)
        cancelled = await self._connection.execute(
            update(runs)
            .where(never_claimed)
            .values(state=RunState.CANCELLED.value, reason="cancelled", finished_at=utc_now())
        )
        if cancelled.rowcount == 1:
            await self._note_all([note(row, RunState.QUEUED, RunState.CANCELLED, 0, actor, "cancelled")])
            await self.next_in_lanes([run_id])
            return RunState.CANCELLED
        # A run that waits for its next try is due at once: somebody has to seal it.
        await self._connection.execute(
            update(runs)
            .where(runs.c.id == run_id, runs.c.state.in_(UNFINISHED))
            .values(cancel_requested=True, not_before=0.0, rung_at=0.0)
        )
        await self._note_all([note(row, run.state, run.state, run.fence, actor, "cancel_requested")])
        return run.state

    async def transitions(
        self, organization: str, run_id: str, *, newest: int = 500, before: int | None = None
    ) -> Sequence[Transition]:
        self._scope.admit(organization)
        table = run_transitions
        query = select(table).where(table.c.org_id == organization, table.c.run_id == run_id)
        if before is not None:
            query = query.where(table.c.id < before)
        rows = reversed((await self._connection.execute(query.order_by(table.c.id.desc()).limit(newest))).all())
        return [
            Transition(row.run_id, row.before, row.after, row.fence, row.actor, row.reason, row.at, row.id)
            for row in rows
        ]

    async def claimable(self, *, unrung_since: timedelta, limit: int) -> Sequence[Ring]:
        if self._is_sqlite:
            await self._expire_gone(within(self._scope, runs))
        left_behind = (
            select(*_RING)
            .where(self._lease_is_over(), within(self._scope, runs))
            .order_by(runs.c.lease_until)
            .limit(limit)
        )
        waiting = (
            select(*_RING)
            .where(
                within(self._scope, runs),
                runs.c.state == QUEUED,
                runs.c.rung_at < self._wall_clock() - unrung_since.total_seconds(),
                runs.c.not_before <= self._wall_clock(),
            )
            .order_by(runs.c.rung_at)
            .limit(limit)
        )
        found: list[Ring] = []
        for query in (left_behind, waiting):
            # Every replica looks; each takes others (L5).
            rows = await self._connection.execute(query.with_for_update(skip_locked=True, key_share=True))
            found += [Ring(row.org_id, row.id, row.trace) for row in rows.all()]
        return found[:limit]

    async def waiting(self, *, limit: int) -> Sequence[Waiting]:
        whose = (runs.c.org_id, runs.c.work_kind, runs.c.work_name)
        since = func.min(runs.c.created_at)
        query = (
            select(*whose, func.count().label("runs"), since.label("since"))
            .where(within(self._scope, runs), runs.c.state == QUEUED)
            .group_by(*whose)
            .order_by(since)
            .limit(limit)
        )
        rows = (await self._connection.execute(query)).all()
        return [Waiting(row.org_id, work_of(row), row.runs, row.since) for row in rows]

    async def stamp_rung(self, run_ids: Sequence[str], *, has_rung: bool = True) -> None:
        if run_ids and has_rung:
            await self._connection.execute(self._statements.stamp, self._statements.values(self._scope, run_ids))
        elif run_ids:
            await self._connection.execute(update(runs).where(named(self._scope, run_ids)).values(rung_at=0.0))

    async def forget_rings(self) -> None:
        await self._connection.execute(
            update(runs)
            .where(within(self._scope, runs), runs.c.state == QUEUED, runs.c.rung_at > 0)
            .values(rung_at=0.0)
        )

    async def last_of(self, organization: str, work: WorkName) -> Run | None:
        self._scope.admit(organization)
        row = (await self._connection.execute(select(*ALL_BUT_PLAN).where(*_one(organization, work)))).first()
        return run_of(row) if row else None

    async def characters_of(self, organization: str, run: str | WorkName) -> int:
        self._scope.admit(organization)
        found = await self._connection.execute(select(size_of(_LARGE)).where(*_one(organization, run)))
        return found.scalar() or 0

    async def unfinished(self, organization: str, work: WorkName, lane: str) -> Run | None:
        self._scope.admit(organization)
        query = (
            select(*ALL_BUT_PLAN)
            .where(
                runs.c.org_id == organization,
                is_of(work),
                runs.c.lane == lane,
                runs.c.state.in_(UNFINISHED),
            )
            .order_by(runs.c.state.desc(), runs.c.id)
            .limit(1)
        )
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

    async def holder(self, organization: str, work: WorkName, lane: str) -> Run | None:
        self._scope.admit(organization)
        of_lane = and_(runs.c.org_id == organization, is_of(work), runs.c.lane == lane)
        if self._is_sqlite:
            await self._expire_gone(of_lane)
        works = and_(runs.c.state == RUNNING, ~self._lease_is_over())
        waits = and_(runs.c.state == QUEUED, runs.c.reason.startswith(RETRY), ~runs.c.cancel_requested)
        query = (
            select(*ALL_BUT_PLAN).where(of_lane, or_(works, waits)).order_by(runs.c.state.desc(), runs.c.id).limit(1)
        )
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

    async def forget_plans(self, organization: str, work: WorkName, lane: str) -> None:
        self._scope.admit(organization)
        of_lane = (runs.c.org_id == organization, is_of(work), runs.c.lane == lane)
        await self._connection.execute(update(runs).where(*of_lane, runs.c.state.in_(UNFINISHED)).values(read_set=None))


def _stands(state: RunState, work: WorkName | None) -> ColumnElement[bool]:
    """Whether a run is in a state, so that an index finds none but those: there may be few among millions."""
    stands = runs.c.state == state.value
    if work is None:
        return stands
    if state.is_terminal:  # As its index says it, which a database compares word for word.
        return and_(is_of(work), stands, runs.c.state.not_in(UNFINISHED))
    # Not at their end are few, so they are found by that alone: the index of all runs of the work is not for these.
    kind, name = (func.coalesce(column, "") for column in (runs.c.work_kind, runs.c.work_name))
    return and_(stands, kind == work.kind.value, name == work.name)


def _one(organization: str, run: str | WorkName) -> tuple[ColumnElement[bool], ...]:
    """The run of an id, or the newest of some work."""
    if isinstance(run, str):
        return (runs.c.org_id == organization, runs.c.id == run)
    newest = select(func.max(runs.c.id)).where(runs.c.org_id == organization, is_of(run)).scalar_subquery()
    return (runs.c.org_id == organization, runs.c.id == newest)


class _Row:
    """The place of a run, where no row was read."""

    def __init__(self, organization: str, run_id: str) -> None:
        self.org_id = organization
        self.id = run_id
