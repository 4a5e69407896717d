"""The fences of all work of which there are runs: one number each, in the table `lanes`, that never goes back (M1)."""

from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    ScalarSelect,
    String,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from domain.runs.work import WorkName
from infrastructure.metadata.tables import lanes, runs

_LANE = (lanes.c.org_id, lanes.c.work_kind, lanes.c.work_name)
_RAISE = update(lanes).values(fence=lanes.c.fence + 1).returning(*_LANE, lanes.c.fence)
_RAISE_ONE = _RAISE.where(*(column == bindparam(f"its_{column.name}") for column in _LANE))

Owned = tuple[str, WorkName]
"""An organization, and some work of it."""


class SqlFences:
    """Raises fences on one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._is_sqlite = connection.dialect.name == "sqlite"

    async def raise_each(self, works: set[Owned]) -> dict[Owned, int]:
        """Raise each by one, locked in one order for everybody; return where they then stand."""
        wanted = {(organization, work.kind.value, work.name): (organization, work) for organization, work in works}
        if len(wanted) == 1:
            ((organization, kind, name),) = wanted
            one = {"its_org_id": organization, "its_work_kind": kind, "its_work_name": name}
            raised = await self._connection.execute(_RAISE_ONE, one)
        elif self._is_sqlite:  # For a list of rows it would read all.
            raised = await self._connection.execute(_RAISE.where(or_(*(_is(*owned) for owned in works))))
        else:
            listed = dict(zip(("orgs", "kinds", "names"), map(list, zip(*wanted, strict=True)), strict=True))
            raised = await self._connection.execute(_raise_listed(), listed)
        return {wanted[row.org_id, row.work_kind, row.work_name]: row.fence for row in raised.all()}

    async def raise_to(self, organization: str, work: WorkName, fence: int) -> None:
        """Raise one to this, unless it is there or above."""
        mine = _is(organization, work)
        await self._connection.execute(update(lanes).where(mine, lanes.c.fence < fence).values(fence=fence))


def _is(organization: str, work: WorkName) -> ColumnElement[bool]:
    return and_(lanes.c.org_id == organization, lanes.c.work_kind == work.kind.value, lanes.c.work_name == work.name)


@cache
def _raise_listed() -> ReturningUpdate[Any]:
    """Raise those that are given as three lists, of organizations, kinds and names, once all are locked in order."""
    lists = (bindparam(name, type_=ARRAY(String)) for name in ("orgs", "kinds", "names"))
    listed = func.unnest(*lists).table_valued("org_id", "work_kind", "work_name", name="listed").render_derived()
    is_listed = tuple_(*_LANE).in_(select(listed.c.org_id, listed.c.work_kind, listed.c.work_name))
    locked = select(*_LANE).where(is_listed).order_by(*_LANE).with_for_update(key_share=True).cte("locked")
    return _RAISE.where(tuple_(*_LANE).in_(select(locked.c.org_id, locked.c.work_kind, locked.c.work_name)))


def fence_of_run() -> ScalarSelect[int]:
    """Where the fence of a run's work stands, for a statement about runs."""
    return (
        select(lanes.c.fence)
        .where(
            lanes.c.org_id == runs.c.org_id,
            lanes.c.work_kind == runs.c.work_kind,
            lanes.c.work_name == runs.c.work_name,
        )
        .scalar_subquery()
    )
