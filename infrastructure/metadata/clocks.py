"""The control database's own clocks, as expressions of a statement."""

import time

from sqlalchemy import ColumnElement, Float, cast, func, literal
from sqlalchemy.ext.asyncio import AsyncConnection

from infrastructure.metadata.leases import boot_time


def wall_clock(connection: AsyncConnection) -> ColumnElement[float]:
    """Seconds since 1970 as the database server sees them; SQLite is on this host.

    The time of the statement: a clock that moves within it could not be compared with an index.
    """
    if connection.dialect.name == "sqlite":
        return literal(time.time())
    return cast(func.extract("epoch", func.statement_timestamp()), Float)


def lease_clock(connection: AsyncConnection) -> ColumnElement[float]:
    """The clock of leases: the server's, or on SQLite the time since boot, which nobody sets (L2)."""
    return literal(boot_time()) if connection.dialect.name == "sqlite" else wall_clock(connection)
