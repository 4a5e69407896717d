"""What may still commit below the end of a read on Postgres: its clock, its open transactions, the primary of a
standby.

Every role sees in `pg_locks` the virtual ids of all open transactions, also of those that have not written yet; their
start only where `pg_stat_activity` shows it. Looked at outside of any snapshot, in this order: the greatest value, its
sequence, the clock, the sessions, what is prepared. So whatever moves on in between is seen at its later place.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from domain.errors import InvalidInputError
from domain.loads.horizon import MARGIN, STANDBY, Horizon, Moment, ReadEnd, Transaction
from domain.pipelines.spec import CursorSpec, SourceSpec
from infrastructure.sql import quote
from infrastructure.stores.cursor_axis import Axis
from infrastructure.stores.cursor_ends import Beginning, CursorEnd, settled
from infrastructure.stores.postgres.connection import READER
from infrastructure.stores.postgres.numbering import numbering
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.sequences import Reach, reach
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.unknowns import axis_of, unknowns
from infrastructure.threads import OneThread

_WRITING = "('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
_CLOCK = (
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, "
    "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, pg_is_in_recovery()"
)
_LOCKING = (
    "EXISTS (SELECT 1 FROM locks w WHERE w.locktype = 'relation' AND w.virtualtransaction = l.virtualtransaction "
    f"AND w.pid IS NOT DISTINCT FROM l.pid AND w.mode IN {_WRITING} "
    "AND w.relation::text = ANY (string_to_array($1, ',')))"
)
_LOCKS = "WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE granted) "
_SESSIONS = (
    f"{_LOCKS} SELECT l.virtualtransaction, l.pid, (extract(epoch FROM a.xact_start) * 1000000)::bigint, "
    f"a.usename::text, a.application_name, {_LOCKING} FROM locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.pid <> pg_backend_pid() AND (a.pid IS NULL OR "
    "(a.datname = current_database() AND a.usesysid IS NOT NULL "
    f"AND (NOT starts_with(coalesce(a.application_name, ''), $2) OR {_LOCKING})))"
)
# A message of several transactions gives all of them the time at which it came, so who is busy counts in between too.
_BUSY = (
    "SELECT a.pid, (extract(epoch FROM coalesce(a.xact_start, a.query_start)) * 1000000)::bigint, a.usename::text, "
    "a.application_name FROM pg_stat_activity a WHERE a.datname = current_database() AND a.usesysid IS NOT NULL "
    "AND a.backend_type = 'client backend' AND (a.state = 'active' OR a.xact_start IS NOT NULL) "
    "AND a.pid <> pg_backend_pid() AND NOT starts_with(coalesce(a.application_name, ''), $1)"
)
_PREPARED = (
    f"{_LOCKS} SELECT p.transaction::text, p.gid, p.owner::text FROM pg_prepared_xacts p JOIN locks l "
    "ON l.locktype = 'transactionid' AND l.pid IS NULL AND l.transactionid = p.transaction "
    f"WHERE p.database = current_database() AND {_LOCKING}"
)
_REPLAYED = (
    "SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint, "
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
)
_PRIMARY = "primary before "
# More of what is in progress on a primary is not told apart.
_STANDING = 16
# As much as a name of Postgres may have; the name of a prepared transaction has up to 200.
_SHOWN = 63


@dataclass(frozen=True)
class _Look:
    """What the source shows of a cursor: its axis, how far its values may be read, the relations that are read, what it
    cannot tell.
    """

    axis: Axis
    reach: Reach
    relations: str
    unknown: tuple[str, ...]

    @property
    def greatest(self) -> int | None:
        """The greatest value that may be read."""
        return self.reach.greatest

    def known(self, before: Horizon | None) -> Horizon | None:
        """An earlier horizon, unless its read went beyond what is held back now: what began after it writes below."""
        held, place = self.reach.held_from, before.place if before is not None else None
        return None if held is not None and place is not None and place > held else before


class PostgresHorizon:
    """Finds where a read by a cursor ends; `session` is in no transaction, and left in none."""

    def __init__(self, session: PostgresSession, thread: OneThread, source: SourceSpec, before: ReadEnd | None) -> None:
        self._session = session
        self._thread = thread
        self._source = source
        self._before = before

    async def end(self, cursor: CursorSpec, lo: str | None, *, waits: bool) -> CursorEnd:
        """Observe the source, wait a little for what has only just begun, and say how far a read may go.

        Raises:
            InvalidInputError: the column cannot be a cursor; the cursor is strict, and something of the source is
            unknown.
        """
        call = self._thread.call
        look = await call(self._look, cursor, lo)
        axis, before = look.axis, look.known(self._before.horizon if self._before is not None else None)
        now, _, is_standby = (await call(self._session.execute, _CLOCK))[0]
        replayed = (await call(self._session.execute, _REPLAYED))[0][0] if is_standby else None
        fresh_for = axis.fresh_for(look.greatest, min(now, replayed or now), MARGIN)
        if waits and fresh_for:
            await asyncio.sleep(fresh_for / 1_000_000 + 0.001)
        horizon, transactions = await call(self._observed, look, before)

        async def look_again(standing: Horizon) -> list[Transaction]:
            return await call(self._transactions, look, standing.life, standing.standing)

        begin = Beginning(axis, look.greatest, lo, self._before, waits, look.unknown, look.reach.held)
        return await settled(begin, horizon, transactions, look_again)

    def _look(self, cursor: CursorSpec, lo: str | None) -> _Look:
        session = self._session
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        selection = Selection.of(session, self._source)
        axis = axis_of(selection, cursor)
        session.bind(selection.settings)
        name = quote(cursor.column)
        value = "{}::text" if axis.is_integer else "(extract(epoch FROM {}) * 1000000)::text"
        both = f"{value.format(f'max({name})')}, {value.format(f'min({name})')}"
        greatest, least = session.execute(f"SELECT {both} FROM {selection.text}")[0]
        rows = session.execute(
            "SELECT string_agg(DISTINCT relation::text, ',') FROM pg_locks WHERE pid = pg_backend_pid() "
            "AND locktype = 'relation' AND mode = 'AccessShareLock' AND relation >= 16384"
        )
        relations = str(rows[0][0] or "")
        numbered = numbering(session, selection, axis, relations)
        seen = axis.reachable(axis.read(least), axis.read(greatest))
        bound = reach(session, selection, axis, numbered, seen, lo)
        unknown = (*unknowns(session, self._source, axis, relations), *numbered.unknown, *bound.unknown)
        session.execute("COMMIT")
        if cursor.is_strict and unknown:
            raise InvalidInputError(
                f"The cursor {cursor.column} is strict, and what may still commit cannot be known. {unknown[0]}",
                code="cursor.unknown",
            )
        return _Look(axis, bound, relations, unknown)

    def _observed(self, look: _Look, before: Horizon | None) -> tuple[Horizon, list[Transaction]]:
        axis, greatest = look.axis, look.greatest
        now, began_at, is_standby = self._session.execute(_CLOCK)[0]
        # What is open on the primary may have begun before its standby did.
        life, since = (STANDBY, None) if is_standby else (f"server {began_at}", began_at)
        at = now
        if is_standby:
            replayed, _, xmax = self._session.execute(_REPLAYED)[0]
            at = min(now, replayed or began_at)
            standing = _numbers(before.standing) if before is not None else []
            if before is not None and len(standing) >= _STANDING:
                before = before.joined(f"{_PRIMARY}{standing[-1]}", f"{_PRIMARY}{xmax}")
        if axis.is_clock:
            place: int | None = at if is_standby else at - MARGIN
        else:
            place = axis.above(greatest) if greatest is not None else None
        moment = Moment(axis.name, axis.is_clock, life, since, at, place, greatest)
        transactions = self._transactions(look, life, before.standing if before is not None else ())
        return Horizon.observed(before, moment, transactions), transactions

    def _transactions(self, look: _Look, life: str, known: Iterable[str]) -> list[Transaction]:
        if life == STANDBY:
            return self._primary(known)
        session = self._session
        found = []
        for virtual, pid, start, user, application, writes in session.execute(_SESSIONS, (look.relations, READER)):
            words = _session_in_words(pid, user, application)
            found.append(Transaction(f"{life}/{virtual}", words, start, writes=bool(writes)))
        for pid, start, user, application in () if look.axis.is_integer else session.execute(_BUSY, (READER,)):
            found.append(Transaction(f"{life}/{pid}/{start}", _session_in_words(pid, user, application), start))
        for transaction, gid, owner in session.execute(_PREPARED, (look.relations,)):
            words = (
                f"the prepared transaction '{_shown(gid)}' of {_shown(owner)} (COMMIT PREPARED or ROLLBACK PREPARED "
                "ends it)"
            )
            found.append(Transaction(f"prepared {transaction}", words, is_prepared=True, writes=True))
        return found

    def _primary(self, known: Iterable[str]) -> list[Transaction]:
        """What is in progress on the primary has no session here: it stands together, by the first number after it."""
        _, xmin, xmax = self._session.execute(_REPLAYED)[0]
        numbers = sorted({*_numbers(known), xmax})
        words = "transactions in progress on the primary"
        return [Transaction(f"{_PRIMARY}{number}", words, writes=True) for number in numbers if xmin < number]


def _numbers(known: Iterable[str]) -> list[int]:
    return sorted(int(name.removeprefix(_PRIMARY)) for name in known if name.startswith(_PRIMARY))


def _shown(name: str) -> str:
    """A name that others gave, fit for a line of a report."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}…"


def _session_in_words(pid: int, user: str | None, application: str | None) -> str:
    known = [f"user {_shown(user)}" if user else "", f"application {_shown(application)}" if application else ""]
    return f"session {pid}" + (f" ({', '.join(word for word in known if word)})" if any(known) else "")
