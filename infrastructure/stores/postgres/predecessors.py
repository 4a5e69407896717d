"""Takes from a lane's earlier owners what they hold: a worker that was stopped keeps its locks, and no time limit frees
them.

Sessions are found by their name, which has the lane and the fence. Only sessions of this database count, since the same
lane may have a destination in another; and of those that are not waited for, only such as hold something in the schema
of the destination, since it may have another one in this database.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from domain.errors import StoreUnavailableError
from domain.runs.lane import Lane
from infrastructure.stores.postgres.connection import Readers, lane_session
from infrastructure.stores.sql.session import T

_ATTEMPTS = 30
_PATIENCE_SECONDS = 1
_MAY_END = (
    "(pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')) "
    "AND (current_setting('is_superuser') = 'on' OR NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = a.usesysid))"
)
_ENDED = (
    f"SELECT a.pid, CASE WHEN {_MAY_END} THEN pg_terminate_backend(a.pid) ELSE false END FROM pg_stat_activity a "
    "WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND starts_with(a.application_name, $1) "
    "AND CASE WHEN substr(a.application_name, length($1) + 1) ~ '^[0-9]{1,18}$' "
    "THEN substr(a.application_name, length($1) + 1)::bigint < $2 END"
)
_OF_SCHEMA = (
    " AND a.pid IN (SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
    "WHERE l.granted AND l.database = a.datid AND c.relnamespace = (SELECT t.relnamespace FROM pg_class t "
    "WHERE t.oid = to_regclass($3)))"
)

_HOLDERS = (
    "SELECT DISTINCT a.pid, a.usename::text, a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = "
    "l.pid WHERE l.granted AND l.database = a.datid AND l.relation = to_regclass($1) AND a.pid <> pg_backend_pid() "
    "ORDER BY 1 LIMIT 5"
)


class Transacting(Protocol):
    """What this needs of a session."""

    def transaction(self) -> Any:
        """Begin, and commit when the block ends well."""

    def execute(self, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """Run one statement."""


def run_patiently(session: Transacting, lane: Lane, fence: int, work: Callable[[], T]) -> T:
    """Do `work` in one transaction; once it has waited a second for a lock, end the lane's earlier owners and try
    again.

    Raises:
        StoreUnavailableError: somebody else has the lock, or an earlier owner whom this role may not end
        (`store.locked`).
    """
    left: list[int] = []
    for _ in range(_ATTEMPTS):
        try:
            with session.transaction():
                session.execute(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")
                return work()
        except StoreUnavailableError as error:
            if error.code != "store.locked":
                raise
        left = _end(session, _ENDED, lane, fence)
    if left:
        raise StoreUnavailableError(
            f"An earlier worker of {lane} holds its locks under another role, which this one may not end: end its "
            f"sessions ({', '.join(map(str, left))}) with pg_terminate_backend, or grant pg_signal_backend.",
            code="store.locked",
        )
    raise StoreUnavailableError(
        f"What the lane {lane} needs stays locked by a session that is no worker of it.", code="store.locked"
    )


def end_holders(session: Transacting, lane: Lane, fence: int, checkpoint: str) -> None:
    """End the lane's earlier owners that hold anything beside a checkpoint table: they can write nothing any more."""
    _end(session, _ENDED + _OF_SCHEMA, lane, fence, checkpoint)


def end_readers(session: Transacting, readers: Readers) -> None:
    """End the sessions in which earlier owners of a lane read: others wait for what a stopped one has locked."""
    if readers.by is not None:
        session.execute(_ENDED, (readers.prefix, readers.by.fence))


def _end(session: Transacting, sql: str, lane: Lane, fence: int, *more: str) -> list[int]:
    rows = session.execute(sql, (lane_session(lane, None) + ":", fence, *more))
    return [pid for pid, is_ended in rows if not is_ended]


@contextmanager
def naming_holders(session: Transacting, table: str) -> Iterator[None]:
    """Say who holds a lock on a table where one was not to be had in time."""
    try:
        yield
    except StoreUnavailableError as error:
        if error.code != "store.locked":
            raise
        found = session.execute(_HOLDERS, (table,))
        if not found:
            raise
        told = ", ".join(f"session {pid} of {user} ({name or 'without a name'})" for pid, user, name in found)
        raise StoreUnavailableError(f"{error.message} Locks on {table} are held by {told}.", code=error.code) from error
