"""How large a value of an expression may become, as a polynomial of the size of a row: what is made, kept, doubled or
squared.

`(p0, p1, p2)` says: at most p0 + p1·row + p2·row² bytes. None says that there is no such bound.
"""

from collections.abc import Iterable

Size = tuple[float, float, float] | None

CELL: float = 16
"""Bytes of a number, a time, an item's place in a list: what has a size of its own whatever it comes from."""
NOTHING: Size = (0.0, 0.0, 0.0)
FIXED: Size = (CELL, 0.0, 0.0)
ROW: Size = (0.0, 1.0, 0.0)
MAX_MADE = 128 * 1024
"""Bytes that a query may make from nothing in one value; DuckDB has 2,048 of them at once in each thread, uncounted."""
MAX_KEPT = 300
"""How many times a value may hold the row that it comes of."""
MAX_MULTIPLIED = 10
"""How many times it may hold two values for each other."""
_MAX_TOGETHER = (2 * 128 * 1024, 1_500, 20)
"""The same for all values of a query together, of which there are as many at once as it has expressions."""
_SMALL = (256, 50, 0)
"""What does not count towards that."""
MAX_GROWTH = 4
"""How many times a column may be in what a step gives, for the step to keep the size of rows."""
MAX_MADE_BESIDE = 900
"""Bytes that such a step may give beside, in a row."""
_MAX_PASSING = (4 * 1024, 100)
"""Bytes made, and times the row, of a value on the way."""


def made(size: float) -> Size:
    """A value of so many bytes that are there in the text."""
    return (max(size, CELL), 0.0, 0.0)


def added(sizes: Iterable[Size]) -> Size:
    """Values that stand together in one."""
    total = (0.0, 0.0, 0.0)
    for size in sizes:
        if size is None:
            return None
        total = (total[0] + size[0], total[1] + size[1], total[2] + size[2])
    return total


def largest(sizes: Iterable[Size]) -> Size:
    """One of some values."""
    most = (0.0, 0.0, 0.0)
    for size in sizes:
        if size is None:
            return None
        most = (max(most[0], size[0]), max(most[1], size[1]), max(most[2], size[2]))
    return most


def times(size: Size, factor: float) -> Size:
    """A value so many times."""
    return None if size is None else (size[0] * factor, size[1] * factor, size[2] * factor)


def product(one: Size, other: Size) -> Size:
    """A value for each part of another."""
    if one is None or other is None:
        return None
    a, b = one, other
    if a[1] * b[2] or a[2] * b[1] or a[2] * b[2]:
        return None
    return (a[0] * b[0], a[0] * b[1] + a[1] * b[0], a[0] * b[2] + a[1] * b[1] + a[2] * b[0])


def is_bounded(size: Size) -> bool:
    """Whether a query may make such a value in the process that owns the file."""
    return size is not None and size[0] <= MAX_MADE and size[1] <= MAX_KEPT and size[2] <= MAX_MULTIPLIED


def together(total: Size, size: Size) -> Size:
    """What the values of a query come to with one more, if that is not small.

    Raises:
        ValueError: it is more than a query may make in the process that owns the file.
    """
    if total is None or size is None:
        raise ValueError
    each = [old + (new if new > small else 0) for old, new, small in zip(total, size, _SMALL, strict=True)]
    if any(one > most for one, most in zip(each, _MAX_TOGETHER, strict=True)):
        raise ValueError
    return (each[0], each[1], each[2])


def passes(size: Size) -> bool:
    """Whether a value on the way to a result is no larger than a few times the row it comes of."""
    return size is not None and size[0] <= _MAX_PASSING[0] and size[1] <= _MAX_PASSING[1] and size[2] == 0
