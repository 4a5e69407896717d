"""Claims and every write under a claim, in sets: one transaction serves all runs that ask at the same time (M1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.failpoints import fail_at
from domain.identity.scope import Scope
from domain.loads.read_set import ReadSet
from domain.runs.report import RunReport
from domain.runs.run import DamagedPlan, Finish, Ring, Run, RunError, RunRequest, RunState, WorkPlan
from domain.runs.work import WorkKind, WorkName, WorkRef
from infrastructure.clock import utc_now, wall_seconds
from infrastructure.metadata.claim_statements import (
    ALL_BUT_PLAN,
    FINISH,
    RUNNING,
    STORE_PLAN,
    claim_statements,
)
from infrastructure.metadata.clocks import lease_clock, wall_clock
from infrastructure.metadata.fences import SqlFences
from infrastructure.metadata.lease_holders import is_gone
from infrastructure.metadata.scopes import named, within
from infrastructure.metadata.tables import run_transitions, runs
from infrastructure.metadata.undamaged import undamaged

# How what a run has planned is read, by the kind of its work.
_PLANS: Mapping[WorkKind, Callable[[Mapping[str, Any]], WorkPlan]] = {WorkKind.PIPELINE: ReadSet.from_json}


class SqlRunClaims:
    """The half of the run records that workers use. Every write carries `state = 'running' AND fence = :mine` (R3)."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self._connection = connection
        self._scope = scope
        self._is_sqlite = connection.dialect.name == "sqlite"
        self._fences = SqlFences(connection)
        self._statements = claim_statements(is_sqlite=self._is_sqlite, is_bounded=scope.organization is not None)

    async def claim_many(self, run_ids: Sequence[str], *, owner: str, lease: timedelta) -> Sequence[Run]:
        if self._is_sqlite:
            await self._expire_gone(named(self._scope, run_ids))
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
        by_lane: dict[tuple[str, WorkName, str], Any] = {}
        values = self._statements.values(self._scope, run_ids)
        for row in (await self._connection.execute(self._statements.candidates, values)).all():
            by_lane.setdefault((row.org_id, work_of(row), row.lane), row)
        return list(by_lane.values())

    async def _claim(self, candidates: Sequence[Row[Any]], owner: str, lease: timedelta) -> list[Run]:
        await self._fences.raise_each({(row.org_id, work_of(row)) for row in candidates})
        values = self._statements.values(self._scope, [row.id for row in candidates])
        values |= {"lease_seconds": lease.total_seconds(), "claimed_by": owner, "now": utc_now()}
        claimed = (await self._connection.execute(self._statements.claim, values)).all()
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
        await self._fences.raise_to(row.org_id, work_of(row), raised)
        await self._note_all([note(row, RunState.RUNNING, RunState.RUNNING, raised, row.lease_owner, "fence_raised")])
        return raised

    async def renew(self, run_id: str, fence: int, *, lease: timedelta) -> str | None:
        row = await self._write(run_id, fence, {"lease_until": self._lease_clock() + lease.total_seconds()})
        if row is None:
            return "fenced"
        return "cancelled" if row.cancel_requested else None

    async def store_read_sets(self, read_sets: Mapping[tuple[str, int], WorkPlan]) -> Sequence[str]:
        held = {row.id for row in await self._held(list(read_sets))}
        values = [
            {"key": run_id, "mine": fence, "plan": read_set.to_json()}
            for (run_id, fence), read_set in read_sets.items()
            if run_id in held
        ]
        if values:
            await self._connection.execute(STORE_PLAN, values)
        return sorted(held)

    async def finish_many(self, finishes: Sequence[Finish]) -> Sequence[Run]:
        by_id = {finish.run_id: finish for finish in finishes}
        held = await self._held({(finish.run_id, finish.fence) for finish in finishes})
        if not held:
            return []
        now = utc_now()
        ends = [
            {
                "key": row.id,
                "mine": row.fence,
                "to_state": by_id[row.id].state.value,
                "to_reason": by_id[row.id].reason[:200],
                "to_report": _json(by_id[row.id].report),
                "to_error": _json(by_id[row.id].error),
                "now": now,
            }
            for row in held
        ]
        await self._connection.execute(FINISH, ends)
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
        mine = (row.org_id, work_of(row))
        fence_now = (await self._fences.raise_each({mine}))[mine]
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
        values = self._statements.values(self._scope, run_ids)
        found = await self._connection.execute(self._statements.next_in_lanes, values)
        ids = [run_id for (run_id,) in found.all() if run_id is not None]
        if not ids:
            return []
        woken = await self._connection.execute(self._statements.wake, {"run_ids": ids})
        return [Ring(row.org_id, row.id, row.trace) for row in woken.all()]

    async def _wait_for_lanes(self, run_ids: Iterable[str]) -> None:
        """Leave runs of held lanes alone until the holder's end rings for the next one.

        `rung_at > 0` keeps a wake-up that comes at the same time: it sets 0, and is looked at again under the row's
        lock.
        """
        values = self._statements.values(self._scope, sorted(run_ids))
        await self._connection.execute(self._statements.wait_for_lanes, values)

    async def next_fence(self, organization: str, work: WorkName, *, above: int = 0) -> int:
        self._scope.admit(organization)
        await self._fences.raise_to(organization, work, above)
        return (await self._fences.raise_each({(organization, work)}))[organization, work]

    async def _held(self, claims: Iterable[tuple[str, int]]) -> Sequence[Row[Any]]:
        """Lock the runs that are still claimed under the fences given, in one order for everybody."""
        fences = dict(claims)
        values = self._statements.values(self._scope, list(fences))
        found = (await self._connection.execute(self._statements.held, values)).all()
        return [row for row in found if row.fence == fences[row.id]]

    async def _write(self, run_id: str, fence: int, values: Mapping[str, Any]) -> Row[Any] | None:
        mine = (runs.c.id == run_id, within(self._scope, runs), runs.c.state == RUNNING, runs.c.fence == fence)
        result = await self._connection.execute(update(runs).where(*mine).values(values).returning(*ALL_BUT_PLAN))
        row: Row[Any] | None = result.first()
        return row

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
        "at": utc_now(),
    }


def _json(value: RunReport | RunError | None) -> dict[str, Any] | None:
    return value.to_json() if value is not None else None


def run_of(row: Row[Any], *, finish: Finish | None = None, finished_at: datetime | None = None) -> Run:
    """Read a row of runs, with its plan or without, as it stands or as it is after `finish`."""
    request = row.request
    return Run(
        id=row.id,
        organization=row.org_id,
        work=WorkRef(WorkKind(row.work_kind), row.work_name, row.revision),
        lane=row.lane,
        state=finish.state if finish else RunState(row.state),
        request=RunRequest(**request),
        fence=row.fence,
        attempt=row.attempt,
        progress=row.progress,
        fruitless=row.fruitless,
        retries=row.retries,
        due_in=max(0.0, row.not_before - wall_seconds()) if row.not_before else 0.0,
        cause=row.cause,
        trace=row.trace,
        correlation_id=row.correlation_id,
        reason=finish.reason if finish else row.reason,
        read_set=undamaged(_PLANS[WorkKind(row.work_kind)], row._mapping.get(runs.c.read_set), DamagedPlan()),
        report=finish.report if finish else undamaged(RunReport.from_json, row.report, None),
        error=finish.error if finish else undamaged(RunError.from_json, row.error, None),
        requested_by=row.requested_by,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=finished_at if finish else row.finished_at,
    )


def work_of(row: Any) -> WorkName:
    """Whose run a row is, whatever the revision."""
    return WorkName(WorkKind(row.work_kind), row.work_name)


def is_of(work: WorkName) -> ColumnElement[bool]:
    """Whether a run is one of some work."""
    return and_(runs.c.work_kind == work.kind.value, runs.c.work_name == work.name)
