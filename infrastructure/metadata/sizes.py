"""How many rows of the records there is room for, before any of them is read."""

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any

from sqlalchemy import Column, Select, Text, cast, func
from sqlalchemy.ext.asyncio import AsyncConnection


async def fitting(
    connection: AsyncConnection, query: Select[Any], columns: Sequence[Column[Any]], most_characters: int
) -> int:
    """The number of a query's rows that have no more than so many characters in these columns; the first
    always fits.
    """
    size = reduce(add, (func.coalesce(func.length(cast(column, Text)), 0) for column in columns))
    total: Iterable[int] = accumulate((await connection.execute(query.with_only_columns(size))).scalars().all())
    return max(1, sum(size <= most_characters for size in total))
