"""The statements of claims, each built once: to build one takes longer than the server needs to answer it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    String,
    Update,
    and_,
    any_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from domain.identity.scope import Scope
from domain.runs.run import RunState
from infrastructure.metadata.clocks import bound_clock, times
from infrastructure.metadata.fences import fence_of_run
from infrastructure.metadata.tables import runs

# Later than any time: the tender looks at such runs never, the end of the lane's holder sets it back.
WAITS_FOR_LANE = 1e18
# In the statement's text, not bound: partial indexes serve only conditions that the planner can read.
QUEUED: ColumnElement[str] = literal_column("'queued'")
RUNNING: ColumnElement[str] = literal_column("'running'")
UNFINISHED = (QUEUED, RUNNING)

# A plan has the name of every file and the profiles of the run before: megabytes that only who loads has a use for.
ALL_BUT_PLAN = tuple(column for column in runs.c if column is not runs.c.read_set)


class ClaimStatements:
    """What is asked and written in sets of runs, on one kind of database, for all organizations or one of them."""

    def __init__(self, *, is_sqlite: bool, is_bounded: bool) -> None:
        self._is_sqlite = is_sqlite
        self._in_scope = _of_one(runs.c.org_id) if is_bounded else true()
        self._wall = bound_clock("wall_now", is_sqlite=is_sqlite)
        self._lease = bound_clock("lease_now", is_sqlite=is_sqlite)
        self._named = and_(self._one_of(runs.c.id), self._in_scope)
        self.candidates = self._candidates()
        self.claim = self._claim()
        self.held = self._held()
        self.stamp: Update = update(runs).where(self._named).values(rung_at=self._wall)
        self.wait_for_lanes: Update = (
            update(runs)
            .where(self._named, runs.c.state == QUEUED, runs.c.rung_at > 0, _lane_is_held())
            .values(rung_at=WAITS_FOR_LANE)
        )
        self.next_in_lanes = self._next_in_lanes()
        self.wake: ReturningUpdate[Any] = (
            update(runs)
            .where(self._one_of(runs.c.id), runs.c.state == QUEUED)
            .values(rung_at=0.0)
            .returning(runs.c.org_id, runs.c.id, runs.c.trace)
        )

    def values(self, scope: Scope, run_ids: Sequence[str]) -> dict[str, Any]:
        """What is bound in each of them: the runs, as far as a scope has them, and the clocks."""
        bound: dict[str, Any] = {"run_ids": list(run_ids), **times(is_sqlite=self._is_sqlite)}
        return bound if scope.organization is None else bound | {"scope_organization": scope.organization}

    def _one_of(self, ids: ColumnElement[str]) -> ColumnElement[bool]:
        if self._is_sqlite:
            return ids.in_(bindparam("run_ids", expanding=True))
        # One text however many there are, which the server has prepared.
        return ids == any_(bindparam("run_ids", type_=ARRAY(String)))

    def _candidates(self) -> Select[Any]:
        is_due = and_(runs.c.state == QUEUED, runs.c.not_before <= self._wall)
        is_over = and_(runs.c.state == RUNNING, runs.c.lease_until < self._lease)
        return (
            select(runs.c.id, runs.c.org_id, runs.c.work_kind, runs.c.work_name, runs.c.lane, runs.c.state)
            .where(self._named, or_(is_due, is_over), ~_lane_is_held())
            .order_by(runs.c.id)
            .with_for_update(of=runs, key_share=True)
        )

    def _claim(self) -> ReturningUpdate[Any]:
        return (
            update(runs)
            .where(self._one_of(runs.c.id), runs.c.state.in_(UNFINISHED))
            .values(
                state=RunState.RUNNING.value,
                fence=fence_of_run(),
                attempt=runs.c.attempt + 1,
                lease_until=self._lease + bindparam("lease_seconds"),
                lease_owner=bindparam("claimed_by"),
                reason=None,
                started_at=func.coalesce(runs.c.started_at, bindparam("now", type_=runs.c.started_at.type)),
            )
            .returning(runs)
        )

    def _held(self) -> Select[Any]:
        return (
            select(*ALL_BUT_PLAN)
            .where(self._named, runs.c.state == RUNNING)
            .order_by(runs.c.id)
            .with_for_update(key_share=True)
        )

    def _next_in_lanes(self) -> Select[Any]:
        first = runs.alias()
        waiting = (
            select(runs.c.id)
            .where(
                runs.c.org_id == first.c.org_id,
                runs.c.work_kind == first.c.work_kind,
                runs.c.work_name == first.c.work_name,
                runs.c.lane == first.c.lane,
                runs.c.state == QUEUED,
            )
            .order_by(runs.c.id)
            .limit(1)
            .correlate(first)
            .scalar_subquery()
        )
        in_scope = true() if self._in_scope is true() else _of_one(first.c.org_id)
        return select(waiting).where(self._one_of(first.c.id), in_scope).distinct()


@cache
def claim_statements(*, is_sqlite: bool, is_bounded: bool) -> ClaimStatements:
    """Those of one kind of database, for all organizations or for one."""
    return ClaimStatements(is_sqlite=is_sqlite, is_bounded=is_bounded)


def _of_one(organizations: ColumnElement[str]) -> ColumnElement[bool]:
    return organizations == bindparam("scope_organization")


def _lane_is_held() -> ColumnElement[bool]:
    """Another run of the same lane was claimed and is unfinished: it works, or waits to go on, and comes first.

    Were it overtaken, its read set would be completed by another run and then loaded again by itself.
    """
    other = runs.alias()
    return exists().where(
        other.c.state.in_(UNFINISHED),
        other.c.attempt > literal_column("0"),
        other.c.org_id == runs.c.org_id,
        other.c.work_kind == runs.c.work_kind,
        other.c.work_name == runs.c.work_name,
        other.c.lane == runs.c.lane,
        other.c.id != runs.c.id,
    )


_CLAIMED = update(runs).where(runs.c.id == bindparam("key"), runs.c.state == RUNNING, runs.c.fence == bindparam("mine"))
STORE_PLAN: Update = _CLAIMED.values(read_set=bindparam("plan"))
"""Of a set of claims (key, mine)."""
FINISH: Update = _CLAIMED.values(
    state=bindparam("to_state"),
    reason=bindparam("to_reason"),
    report=bindparam("to_report"),
    error=bindparam("to_error"),
    finished_at=bindparam("now"),
    lease_until=None,
)
"""Of a set of claims (key, mine)."""
