"""Claims and every write under a claim, in sets: one transaction serves all runs that ask at the same time (M1)."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failpoints import fail_at
from domain.runs.run import Finish, Ring, Run, RunRequest, RunState
from infrastructure.metadata.clocks import lease_clock, wall_clock
from infrastructure.metadata.leases import is_gone
from infrastructure.metadata.tables import pipelines, run_transitions, runs

# Later than any time: the tender looks at such runs never, the end of the lane's holder sets it back.
WAITS_FOR_LANE = 1e18
# In the statement's text, not bound: partial indexes serve only conditions that the planner can read.
QUEUED: ColumnElement[str] = literal_column("'queued'")
RUNNING: ColumnElement[str] = literal_column("'running'")
UNFINISHED = (QUEUED, RUNNING)


class SqlRunClaims:
    """The half of the run records that workers use. Every write carries `state = 'running' AND fence = :mine` (R3)."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    async def claim_many(self, run_ids: Sequence[str], *, owner: str, lease: timedelta) -> Sequence[Run]:
        if self._is_sqlite:
            await self._expire_gone(runs.c.id.in_(run_ids))
        candidates = await self._candidates(run_ids)
        if len(candidates) < len(run_ids):
            await self._wait_for_lanes(set(run_ids) - {row.id for row in candidates})
        if not candidates:
            return []
        try:
            async with self._connection.begin_nested():
                claimed = await self._claim(candidates, owner, lease)
        except IntegrityError:
            # Another worker was faster in one of the lanes; alone, each of the others can still be claimed.
            if len(candidates) == 1:
                return []
            found: list[Run] = []
            for candidate in candidates:
                found += await self.claim_many([candidate.id], owner=owner, lease=lease)
            return found
        fail_at("claim.after_update")
        return claimed

    async def _candidates(self, run_ids: Sequence[str]) -> list[Row[Any]]:
        """Lock what may be claimed: due or left behind, one per lane, none in a lane that another run holds."""
        is_due = and_(runs.c.state == QUEUED, runs.c.not_before <= self._wall_clock())
        query = (
            select(runs.c.id, runs.c.org_id, runs.c.pipeline, runs.c.lane, runs.c.state)
            .where(runs.c.id.in_(run_ids), or_(is_due, self._lease_is_over()), ~_lane_is_held())
            .order_by(runs.c.id)
            .with_for_update(of=runs, key_share=True)
        )
        by_lane: dict[tuple[str, str, str], Any] = {}
        for row in (await self._connection.execute(query)).all():
            by_lane.setdefault((row.org_id, row.pipeline, row.lane), row)
        return list(by_lane.values())

    async def _claim(self, candidates: Sequence[Row[Any]], owner: str, lease: timedelta) -> list[Run]:
        await self._raise_fences({(row.org_id, row.pipeline) for row in candidates})
        fence = (
            select(pipelines.c.fence)
            .where(pipelines.c.org_id == runs.c.org_id, pipelines.c.name == runs.c.pipeline)
            .scalar_subquery()
        )
        claim = (
            update(runs)
            .where(runs.c.id.in_([row.id for row in candidates]), runs.c.state.in_(UNFINISHED))
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
        claimed = (await self._connection.execute(claim)).all()
        before = {row.id: row.state for row in candidates}
        notes = []
        for row in claimed:
            if before[row.id] == RunState.RUNNING.value:
                notes.append(note(row, RunState.RUNNING, RunState.QUEUED, row.fence, owner, "lease_expired"))
            notes.append(note(row, RunState.QUEUED, RunState.RUNNING, row.fence, owner, "claimed"))
        await self._note_all(notes)
        return [run_of(row) for row in claimed]

    async def raise_fence(self, run_id: str, fence: int, *, above: int) -> int | None:
        raised = max(above, fence) + 1
        row = await self._write(run_id, fence, {"fence": raised})
        if row is None:
            return None
        await self._connection.execute(
            update(pipelines)
            .where(pipelines.c.org_id == row.org_id, pipelines.c.name == row.pipeline, pipelines.c.fence < raised)
            .values(fence=raised)
        )
        await self._note_all([note(row, RunState.RUNNING, RunState.RUNNING, raised, row.lease_owner, "fence_raised")])
        return raised

    async def renew(self, run_id: str, fence: int, *, lease: timedelta) -> str | None:
        row = await self._write(run_id, fence, {"lease_until": self._lease_clock() + lease.total_seconds()})
        if row is None:
            return "fenced"
        return "cancelled" if row.cancel_requested else None

    async def store_read_sets(self, read_sets: Mapping[tuple[str, int], Mapping[str, Any]]) -> Sequence[str]:
        held = {row.id for row in await self._held(list(read_sets))}
        values = [
            {"key": run_id, "mine": fence, "read_set": dict(read_set)}
            for (run_id, fence), read_set in read_sets.items()
            if run_id in held
        ]
        if values:
            await self._connection.execute(_mine().values(read_set=bindparam("read_set")), values)
        return sorted(held)

    async def finish_many(self, finishes: Sequence[Finish]) -> Sequence[Run]:
        by_id = {finish.run_id: finish for finish in finishes}
        held = await self._held({(finish.run_id, finish.fence) for finish in finishes})
        if not held:
            return []
        now = datetime.now(UTC)
        ends = [
            {
                "key": row.id,
                "mine": row.fence,
                "to_state": by_id[row.id].state.value,
                "to_reason": by_id[row.id].reason[:200],
                "to_report": by_id[row.id].report,
                "to_error": by_id[row.id].error,
            }
            for row in held
        ]
        statement = _mine().values(
            state=bindparam("to_state"),
            reason=bindparam("to_reason"),
            report=bindparam("to_report"),
            error=bindparam("to_error"),
            finished_at=now,
            lease_until=None,
        )
        await self._connection.execute(statement, ends)
        await self._note_all(
            note(row, RunState.RUNNING, by_id[row.id].state, row.fence, row.lease_owner, by_id[row.id].reason)
            for row in held
        )
        return [run_of(row, finish=by_id[row.id], finished_at=now) for row in held]

    async def release(
        self, run_id: str, fence: int, *, reason: str, pause: timedelta | None = None, is_retry: bool = False
    ) -> bool:
        # A graceful release is no crash: the next claim's progress is compared with nothing (R4).
        given_back: dict[str, Any] = {
            "state": RunState.QUEUED.value, "lease_until": None, "rung_at": 0.0, "progress": -1, "reason": reason[:200]
        }  # fmt: skip
        if pause is not None:
            given_back["not_before"] = self._wall_clock() + pause.total_seconds()
        if is_retry:
            given_back["retries"] = runs.c.retries + 1
        row = await self._write(run_id, fence, given_back)
        if row is None:
            return False
        # Coming back to the queue raises the fence, so the one who gave it back cannot write any more (R1).
        raised = await self._raise_fences({(row.org_id, row.pipeline)})
        fence_now = raised[row.org_id, row.pipeline]
        await self._note_all([note(row, RunState.RUNNING, RunState.QUEUED, fence_now, row.lease_owner, reason)])
        return True

    async def note_progress(self, run_id: str, fence: int, *, progress: int) -> int | None:
        is_same = runs.c.progress == progress
        row = await self._write(
            run_id, fence, {"fruitless": case((is_same, runs.c.fruitless + 1), else_=0), "progress": progress}
        )
        return row.fruitless if row else None

    async def note(self, run_id: str, fence: int, *, reason: str) -> bool:
        row = await self._write(run_id, fence, {"reason": reason[:200]})
        if row is None:
            return False
        await self._note_all([note(row, RunState.RUNNING, RunState.RUNNING, fence, row.lease_owner, reason)])
        return True

    async def next_in_lanes(self, run_ids: Sequence[str]) -> Sequence[Ring]:
        first = runs.alias()
        waiting = (
            select(runs.c.id)
            .where(
                runs.c.org_id == first.c.org_id,
                runs.c.pipeline == first.c.pipeline,
                runs.c.lane == first.c.lane,
                runs.c.state == QUEUED,
            )
            .order_by(runs.c.id)
            .limit(1)
            .correlate(first)
            .scalar_subquery()
        )
        found = await self._connection.execute(select(waiting).where(first.c.id.in_(run_ids)).distinct())
        ids = [run_id for (run_id,) in found.all() if run_id is not None]
        if not ids:
            return []
        woken = await self._connection.execute(
            update(runs)
            .where(runs.c.id.in_(ids), runs.c.state == QUEUED)
            .values(rung_at=0.0)
            .returning(runs.c.org_id, runs.c.id, runs.c.trace)
        )
        return [Ring(row.org_id, row.id, row.trace) for row in woken.all()]

    async def _wait_for_lanes(self, run_ids: Iterable[str]) -> None:
        """Leave runs of held lanes alone until the holder's end rings for the next one.

        `rung_at > 0` keeps a wake-up that comes at the same time: it sets 0, and is looked at again under the row's
        lock.
        """
        await self._connection.execute(
            update(runs)
            .where(
                runs.c.id.in_(sorted(run_ids)),
                runs.c.state == QUEUED,
                runs.c.rung_at > 0,
                _lane_is_held(),
            )
            .values(rung_at=WAITS_FOR_LANE)
        )

    async def next_fence(self, organization: str, pipeline: str, *, above: int = 0) -> int:
        await self._connection.execute(
            update(pipelines)
            .where(pipelines.c.org_id == organization, pipelines.c.name == pipeline, pipelines.c.fence < above)
            .values(fence=above)
        )
        return (await self._raise_fences({(organization, pipeline)}))[organization, pipeline]

    async def _held(self, claims: Iterable[tuple[str, int]]) -> Sequence[Row[Any]]:
        """Lock the runs that are still claimed under the fences given, in one order for everybody."""
        fences = dict(claims)
        query = (
            select(runs)
            .where(runs.c.id.in_(list(fences)), runs.c.state == RUNNING)
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )
        return [row for row in (await self._connection.execute(query)).all() if row.fence == fences[row.id]]

    async def _write(self, run_id: str, fence: int, values: Mapping[str, Any]) -> Row[Any] | None:
        mine = (runs.c.id == run_id, runs.c.state == RUNNING, runs.c.fence == fence)
        result = await self._connection.execute(update(runs).where(*mine).values(values).returning(runs))
        row: Row[Any] | None = result.first()
        return row

    async def _raise_fences(self, names: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Raise the fences of pipelines, locked in one order for everybody."""
        key = tuple_(pipelines.c.org_id, pipelines.c.name)
        chosen = select(pipelines.c.org_id, pipelines.c.name).where(key.in_(sorted(names)))
        if len(names) > 1 and not self._is_sqlite:
            chosen = chosen.order_by(pipelines.c.org_id, pipelines.c.name).with_for_update(key_share=True)
            locked = chosen.cte("locked")
            where = key.in_(select(locked.c.org_id, locked.c.name))
        else:
            where = key.in_(sorted(names))
        raised = await self._connection.execute(
            update(pipelines)
            .where(where)
            .values(fence=pipelines.c.fence + 1)
            .returning(pipelines.c.org_id, pipelines.c.name, pipelines.c.fence)
        )
        return {(row.org_id, row.name): row.fence for row in raised.all()}

    async def _expire_gone(self, where: ColumnElement[bool]) -> None:
        """On one host a lease whose process is gone, or whose boot is another, is over at once (L2)."""
        query = select(runs.c.id, runs.c.fence, runs.c.lease_owner).where(
            where, runs.c.state == RUNNING, runs.c.lease_until > 0
        )
        for row in (await self._connection.execute(query)).all():
            if row.lease_owner and is_gone(row.lease_owner):
                await self._connection.execute(
                    update(runs)
                    .where(runs.c.id == row.id, runs.c.fence == row.fence, runs.c.state == RUNNING)
                    .values(lease_until=0.0)
                )

    def _lease_is_over(self) -> ColumnElement[bool]:
        return and_(runs.c.state == RUNNING, runs.c.lease_until < self._lease_clock())

    def _lease_clock(self) -> ColumnElement[float]:
        return lease_clock(self._connection)

    def _wall_clock(self) -> ColumnElement[float]:
        return wall_clock(self._connection)

    async def _note_all(self, notes: Iterable[Mapping[str, Any]]) -> None:
        rows = list(notes)
        if rows:
            await self._connection.execute(insert(run_transitions), rows)


def note(row: Any, before: RunState | None, after: RunState, fence: int, actor: str | None, reason: str) -> Any:
    """One line of a run's history, as a row."""
    return {
        "org_id": row.org_id,
        "run_id": row.id,
        "before": before.value if before else None,
        "after": after.value,
        "fence": fence,
        "actor": (actor or "")[:200],
        "reason": reason[:200],
        "at": datetime.now(UTC),
    }


def run_of(row: Row[Any], *, finish: Finish | None = None, finished_at: datetime | None = None) -> Run:
    """Read a row of runs, as it stands or as it is after `finish`."""
    request = row.request
    return Run(
        id=row.id,
        organization=row.org_id,
        pipeline=row.pipeline,
        revision=row.revision,
        lane=row.lane,
        state=finish.state if finish else RunState(row.state),
        request=RunRequest(**request),
        fence=row.fence,
        attempt=row.attempt,
        progress=row.progress,
        fruitless=row.fruitless,
        retries=row.retries,
        due_in=max(0.0, row.not_before - time.time()) if row.not_before else 0.0,
        cause=row.cause,
        trace=row.trace,
        reason=finish.reason if finish else row.reason,
        read_set=row.read_set,
        report=finish.report if finish else row.report,
        error=finish.error if finish else row.error,
        requested_by=row.requested_by,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=finished_at if finish else row.finished_at,
    )


def _lane_is_held() -> ColumnElement[bool]:
    """Another run of the same lane was claimed and is unfinished: it works, or waits to go on, and comes first.

    Were it overtaken, its read set would be completed by another run and then loaded again by itself.
    """
    other = runs.alias()
    return exists().where(
        other.c.state.in_(UNFINISHED),
        other.c.attempt > literal_column("0"),
        other.c.org_id == runs.c.org_id,
        other.c.pipeline == runs.c.pipeline,
        other.c.lane == runs.c.lane,
        other.c.id != runs.c.id,
    )


def _mine() -> Any:
    """An UPDATE of a claimed run, for a set of (key, mine)."""
    return update(runs).where(
        runs.c.id == bindparam("key"),
        runs.c.state == RUNNING,
        runs.c.fence == bindparam("mine"),
    )
