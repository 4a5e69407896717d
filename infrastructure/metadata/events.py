"""IEventOutbox on SQLAlchemy: events in one table, in another how far each subscriber has been told of them."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.events import Event
from domain.identity.scope import Scope
from domain.ports.records.events import IEventOutbox, StoredEvent, Untold
from domain.runs.work import WorkKind
from infrastructure.clock import utc_now
from infrastructure.metadata.clocks import bound_clock, lease_clock, times
from infrastructure.metadata.tables import event_cursors, events

_LONGEST_HOLD = timedelta(minutes=1)
# As versions before the seventh revision named what is in an event.
_NAMES = {"state": "status", "rows_used": "record_count", "code": "error_type", "message": "error_message"}

# Who has inserted into the table, or is about to, in whatever session: the lock stays until the transaction has ended.
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' "
    "AND relation = 'events'::regclass AND pid <> pg_catalog.pg_backend_pid() "
    "AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
)


_AFTER = select(events).where(events.c.id > bindparam("last")).order_by(events.c.id).limit(bindparam("most"))
_TOLD = (
    update(event_cursors)
    .where(event_cursors.c.subscriber == bindparam("name"), event_cursors.c.last <= bindparam("told"))
    .values(last=bindparam("told"), holder=None, held_until=None)
)
_TOLD_BY_NOBODY = _TOLD.where(event_cursors.c.holder.is_(None))
_TOLD_BY_HOLDER = _TOLD.where(event_cursors.c.holder == bindparam("held_by"))


class Horizon:
    """Up to which event on Postgres none is missing that may still come.

    Ids are drawn before their transactions commit, so a smaller one may appear after a greater one. Whoever inserts
    has locked the table before it draws an id. So once all who had locked it when an id was there already have ended,
    what is missing below that id was rolled back.
    """

    def __init__(self) -> None:
        self.settled = 0
        self._pending: tuple[int, frozenset[str]] | None = None

    async def look(self, connection: AsyncConnection, seen: int) -> None:
        """Look who writes; `seen` is the id of an event that was read before."""
        pending = self._pending
        writers = frozenset((await connection.execute(_WRITERS)).scalars())
        if pending is not self._pending:
            return  # Somebody has looked meanwhile, and what was seen here may be older than that.
        bound, before = pending or (seen, writers)
        still = before & writers
        self._pending = (bound, still) if still else None
        if not still:
            self.settled = max(self.settled, bound if writers else max(bound, seen))


class SqlEventOutbox(IEventOutbox):
    """Events in the transaction of the state that caused them."""

    def __init__(self, connection: AsyncConnection, scope: Scope, horizon: Horizon) -> None:
        self._connection = connection
        self._scope = scope
        self._horizon = horizon
        self._is_sqlite = connection.dialect.name == "sqlite"

    async def add(self, *told: Event) -> None:
        self._scope.admit(*(event.origin.organization for event in told))
        now = utc_now()
        rows = [
            {
                "org_id": event.origin.organization,
                "event_type": event.event_type,
                "run_id": event.origin.run_id,
                "payload": event.payload(),
                "created_at": now,
            }
            for event in told
        ]
        if rows:
            await self._connection.execute(insert(events), rows)

    async def untold(self, subscriber: str, *, limit: int) -> Untold:
        cursor = await self._locked(subscriber)
        holder = None if cursor.is_free else str(cursor.holder)
        if self._is_sqlite:  # Who writes waits for who wrote before: ids are in the order of commits.
            return Untold([_event(row) for row in await self._after(cursor.last, limit)], holder)
        found, is_waiting = await self._without_gaps(cursor.last, limit)
        if is_waiting and not found:
            found, is_waiting = await self._without_gaps(cursor.last, limit)
        return Untold([_event(row) for row in found], holder, is_waiting)

    async def _after(self, last: int, limit: int) -> Sequence[Row[Any]]:
        return (await self._connection.execute(_AFTER, {"last": last, "most": limit})).all()

    async def _without_gaps(self, last: int, limit: int) -> tuple[Sequence[Row[Any]], bool]:
        """The rows before the first gap that may still be filled, and whether there is one."""
        settled = self._horizon.settled  # Taken before rows are read: what it knows of is among them.
        rows = await self._after(last, limit)
        for place, row in enumerate(rows):
            if row.id > max(last, settled) + 1:
                if not place:
                    await self._horizon.look(self._connection, rows[-1].id)
                return rows[:place], True
            last = row.id
        return rows, False

    async def _locked(self, subscriber: str) -> Row[Any]:
        """A subscriber's cursor, which nobody else moves until this transaction ends."""
        self._scope.admit_all()
        query = _cursor(is_sqlite=self._is_sqlite)
        of_subscriber = {"name": subscriber, **times(is_sqlite=self._is_sqlite)}
        row: Row[Any] | None = (await self._connection.execute(query, of_subscriber)).one_or_none()
        if row is None:
            least = select(func.coalesce(func.min(event_cursors.c.last), 0)).scalar_subquery()
            begin = (sqlite if self._is_sqlite else postgresql).insert(event_cursors)
            begin = begin.values(subscriber=subscriber, last=least).on_conflict_do_nothing()
            await self._connection.execute(begin)
            row = (await self._connection.execute(query, of_subscriber)).one()
        return row

    async def hold(self, subscriber: str, holder: str, *, lease: timedelta) -> None:
        self._scope.admit_all()
        until = lease_clock(self._connection) + min(lease, _LONGEST_HOLD).total_seconds()
        held = update(event_cursors).where(event_cursors.c.subscriber == subscriber)
        await self._connection.execute(held.values(holder=holder, held_until=until))

    async def note_told(self, subscriber: str, last: int, *, holder: str | None = None) -> bool:
        self._scope.admit_all()
        told = {"name": subscriber, "told": last}
        if holder is None:
            moved = await self._connection.execute(_TOLD_BY_NOBODY, told)
        else:
            moved = await self._connection.execute(_TOLD_BY_HOLDER, told | {"held_by": holder})
        return moved.rowcount > 0

    async def of_run(
        self, organization: str, run_id: str, *, newest: int, before: int | None = None
    ) -> Sequence[StoredEvent]:
        self._scope.admit(organization)
        query = select(events).where(events.c.org_id == organization, events.c.run_id == run_id)
        if before is not None:
            query = query.where(events.c.id < before)
        rows = (await self._connection.execute(query.order_by(events.c.id.desc()).limit(newest))).all()
        return [_event(row) for row in reversed(rows)]


@cache
def _cursor(*, is_sqlite: bool) -> Select[Any]:
    """Lock a subscriber's cursor, and say whether somebody else tells it."""
    now, until = bound_clock("lease_now", is_sqlite=is_sqlite), event_cursors.c.held_until
    # No hold is as long as that: the clock began anew, with the host of a file or on another one.
    is_over = (until < now) | (until > now + _LONGEST_HOLD.total_seconds())
    is_free = event_cursors.c.holder.is_(None) | is_over
    query = select(event_cursors.c.last, event_cursors.c.holder, is_free.label("is_free"))
    return query.where(event_cursors.c.subscriber == bindparam("name")).with_for_update()


def _event(row: Row[Any]) -> StoredEvent:
    payload = {_NAMES.get(name, name): value for name, value in row.payload.items()}
    if "pipeline" in payload:  # As versions before the fifth revision wrote it.
        payload["subject"] = {"kind": WorkKind.PIPELINE.value, "name": payload.pop("pipeline")}
    return StoredEvent(row.id, row.org_id, row.event_type, payload, row.created_at)
