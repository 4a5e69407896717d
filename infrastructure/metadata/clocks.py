"""The control database's own clocks, as expressions of a statement."""

from sqlalchemy import ColumnElement, Float, bindparam, cast, func, literal
from sqlalchemy.ext.asyncio import AsyncConnection

from infrastructure.clock import boot_time, wall_seconds

# The time of the statement: a clock that moves within it could not be compared with an index.
_SERVER_CLOCK: ColumnElement[float] = cast(func.extract("epoch", func.statement_timestamp()), Float)


def wall_clock(connection: AsyncConnection) -> ColumnElement[float]:
    """Seconds since 1970 as the database server sees them; SQLite is on this host."""
    return literal(wall_seconds()) if connection.dialect.name == "sqlite" else _SERVER_CLOCK


def lease_clock(connection: AsyncConnection) -> ColumnElement[float]:
    """The clock of leases: the server's, or on SQLite the time since boot, which nobody sets (L2)."""
    return literal(boot_time()) if connection.dialect.name == "sqlite" else _SERVER_CLOCK


def bound_clock(name: str, *, is_sqlite: bool) -> ColumnElement[float]:
    """A clock for a statement that is built once; `name` is that of `times` which SQLite is given with each use."""
    return bindparam(name, type_=Float) if is_sqlite else _SERVER_CLOCK


def times(*, is_sqlite: bool) -> dict[str, float]:
    """What the clocks of a statement that is built once show now."""
    return {"wall_now": wall_seconds(), "lease_now": boot_time()} if is_sqlite else {}
