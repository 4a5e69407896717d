"""Headrace's own rows at a destination are what was written: what the database makes something else of, or somebody has
written into them, is told by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import StoreRefusedError
from domain.stores.table import TableName

_CODE = "destination.records"
MOST = 2**62
"""No number of ours gets this far."""


def not_kept(table: TableName) -> StoreRefusedError:
    """Say that a table of ours does not hold what has just been written to it."""
    return StoreRefusedError(
        f"The table {table} does not hold what is written to it: a trigger, a rule or row-level security of the "
        "database makes something else of it. Drop that; the tables whose names start with _headrace are Headrace's "
        "alone.",
        code=_CODE,
    )


@contextmanager
def telling_damage(table: TableName) -> Iterator[None]:
    """Tell of what Headrace has never written.

    Raises:
        StoreRefusedError: there is some (`destination.records`).
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise StoreRefusedError(
            f"The table {table} holds rows that are not as Headrace writes them: somebody has changed them. Put them "
            "back as they were, or delete those of this pipeline and run it with --full-refresh.",
            code=_CODE,
        ) from error
