"""Runs on SQLAlchemy: asked for, read, cancelled, looked for by the tender."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, insert, or_, select, true, update

from domain.ports.unit_of_work import IRunRecords, Page
from domain.runs.run import RETRY, Ring, Run, RunState, Transition
from infrastructure.metadata.claims import QUEUED, RUNNING, UNFINISHED, SqlRunClaims, note, run_of
from infrastructure.metadata.sizes import fitting
from infrastructure.metadata.tables import run_transitions, runs

# A run whose destination is away for weeks says so again and again.
_NEWEST_TRANSITIONS = 10_000
_LARGE = (runs.c.request, runs.c.read_set, runs.c.report, runs.c.error)


class SqlRunRecords(SqlRunClaims, IRunRecords):
    """All of the run records on one connection."""

    async def insert_many(self, asked: Sequence[Run]) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "org_id": run.organization,
                "id": run.id,
                "pipeline": run.pipeline,
                "revision": run.revision,
                "lane": run.lane,
                "state": RunState.QUEUED.value,
                "request": {**asdict(run.request), "parameters": dict(run.request.parameters)},
                "requested_by": run.requested_by,
                "cause": run.cause,
                "trace": run.trace,
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

    async def caused_by(self, causes: Sequence[str]) -> set[tuple[str, str]]:
        query = select(runs.c.pipeline, runs.c.cause).where(runs.c.cause.in_(causes))
        return {(row.pipeline, row.cause) for row in (await self._connection.execute(query)).all()}

    async def get(self, organization: str, run_id: str) -> Run | None:
        query = select(runs).where(runs.c.org_id == organization, runs.c.id == run_id)
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

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
        query = select(runs).where(runs.c.org_id == organization).order_by(runs.c.id.desc())
        if pipeline is not None:
            query = query.where(runs.c.pipeline == pipeline)
        if state is not None:
            query = query.where(runs.c.state == state.value)
        if after is not None:
            query = query.where(runs.c.id < after)
        if most_characters is not None:
            limit = await fitting(self._connection, query.limit(limit), _LARGE, most_characters)
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
            .values(state=RunState.CANCELLED.value, reason="cancelled", finished_at=datetime.now(UTC))
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

    async def transitions(self, organization: str, run_id: str) -> Sequence[Transition]:
        table = run_transitions
        query = select(table).where(table.c.org_id == organization, table.c.run_id == run_id)
        query = query.order_by(table.c.id.desc()).limit(_NEWEST_TRANSITIONS)
        rows = reversed((await self._connection.execute(query)).all())
        return [Transition(row.run_id, row.before, row.after, row.fence, row.actor, row.reason, row.at) for row in rows]

    async def claimable(self, *, unrung_since: timedelta, limit: int) -> Sequence[Ring]:
        if self._is_sqlite:
            await self._expire_gone(true())
        left_behind = select(runs).where(self._lease_is_over()).order_by(runs.c.lease_until).limit(limit)
        waiting = (
            select(runs)
            .where(
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

    async def stamp_rung(self, run_ids: Sequence[str], *, has_rung: bool = True) -> None:
        if run_ids:
            rung_at = self._wall_clock() if has_rung else 0.0
            await self._connection.execute(update(runs).where(runs.c.id.in_(run_ids)).values(rung_at=rung_at))

    async def forget_rings(self) -> None:
        await self._connection.execute(
            update(runs).where(runs.c.state == QUEUED, runs.c.rung_at > 0).values(rung_at=0.0)
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
                runs.c.state.in_(UNFINISHED),
            )
            .order_by(runs.c.state.desc(), runs.c.id)
            .limit(1)
        )
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

    async def holder(self, organization: str, pipeline: str, lane: str) -> Run | None:
        of_lane = and_(runs.c.org_id == organization, runs.c.pipeline == pipeline, runs.c.lane == lane)
        if self._is_sqlite:
            await self._expire_gone(of_lane)
        works = and_(runs.c.state == RUNNING, ~self._lease_is_over())
        waits = and_(runs.c.state == QUEUED, runs.c.reason.startswith(RETRY), ~runs.c.cancel_requested)
        query = select(runs).where(of_lane, or_(works, waits)).order_by(runs.c.state.desc(), runs.c.id).limit(1)
        row = (await self._connection.execute(query)).first()
        return run_of(row) if row else None

    async def forget_plans(self, organization: str, pipeline: str, lane: str) -> None:
        of_lane = (runs.c.org_id == organization, runs.c.pipeline == pipeline, runs.c.lane == lane)
        await self._connection.execute(update(runs).where(*of_lane, runs.c.state.in_(UNFINISHED)).values(read_set=None))


class _Row:
    """The place of a run, where no row was read."""

    def __init__(self, organization: str, run_id: str) -> None:
        self.org_id = organization
        self.id = run_id
