"""How many files and connections this process may have open at a time."""

import resource
from contextlib import suppress

from entrypoints.http.asking import MOST_BEYOND
from entrypoints.http.entrance import MOST_WAITING
from entrypoints.log import log

_BESIDE_CONNECTIONS = MOST_WAITING + MOST_BEYOND + 992
"""For connections that wait for a place and probes, and for stores, records, files and children."""


def allow_connections(connections: int) -> None:
    """Have as many descriptors as so many connections and all else need, or say that there are fewer.

    Most systems give a process 1,024 until it asks for more. Connections, for which nobody needs a key, would take them
    all: nothing else could be opened then, and nobody be let in.
    """
    wanted = connections + _BESIDE_CONNECTIONS
    found = _allowed(wanted)
    if found < wanted:
        sentence = (
            f"This process may have {found:,} files and connections open, and {connections:,} connections "
            f"(HEADRACE_HTTP__MAX_CONNECTIONS) and all else need {wanted:,}: raise the limit of open files, or lower "
            "the setting."
        )
        log.warning("server.descriptors", message=sentence)


def _allowed(wanted: int) -> int:
    """Ask the system for so many, and say how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    most = wanted if hard == unlimited else min(wanted, hard)
    if soft != unlimited and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return wanted if soft == unlimited else soft
