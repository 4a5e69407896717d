"""Recognizes a pooler that gives each transaction another session of the server.

Locks, snapshots, settings, temporary tables and the names by which a take-over finds its predecessors live in sessions.
A pooler that gives a client one session for as long as it is connected keeps all of that.
"""

from collections.abc import Awaitable, Callable

ASK = "SELECT pg_catalog.pg_backend_pid()"
ADVICE = (
    "is behind a pooler that gives each transaction another session, such as PgBouncer in transaction mode, and what "
    "keeps rows exact lives in sessions: connect to the server itself, or to a pool with pool_mode = session"
)
_ROUNDS = 3

Backend = Callable[[], Awaitable[int]]


async def share_sessions(first: Backend, second: Backend) -> bool:
    """Whether two connections, each of which says what process of the server answers it, are given one process in turn.

    A pooler that takes the latest free session gives both the same; one that takes turns gives the first another at
    once.
    """
    for _ in range(_ROUNDS):
        ours = {await first(), await first()}
        theirs = {await second(), await second()}
        if len(ours) > 1 or len(theirs) > 1 or ours & theirs:
            return True
    return False
