"""How many rows of the records there is room for, before any of them is read."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Text, cast, func
from sqlalchemy.ext.asyncio import AsyncConnection

_FIRST = 8


def size_of(columns: Sequence[Column[Any]]) -> ColumnElement[int]:
    """The characters that columns have together."""
    return reduce(add, (func.coalesce(func.length(cast(column, Text)), 0) for column in columns))


async def fitting(
    connection: AsyncConnection,
    query: Select[Any],
    columns: Sequence[Column[Any]],
    most_characters: int,
    limit: int | None = None,
) -> int:
    """The number of a query's rows that have no more than so many characters in these columns; the first
    always fits.

    Each time twice as many are looked at as before: a database reads a text to say how long it is, and hundreds of
    large ones, of which the first few fit, took it seconds.
    """
    sizes = query.with_only_columns(size_of(columns))
    fits, room, at_once = 0, most_characters, _FIRST
    while limit is None or fits < limit:
        most = at_once if limit is None else min(at_once, limit - fits)
        found = (await connection.execute(sizes.offset(fits).limit(most))).scalars().all()
        for each in found:
            room -= each
            if room < 0:
                return max(1, fits)
            fits += 1
        if len(found) < most:
            break
        at_once *= 2
    return max(1, fits)
