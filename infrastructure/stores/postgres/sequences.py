"""How far a read by a number may go that a sequence of Postgres counts: rows may have numbers that it gives only later.

Somebody inserts a row with a number far above what the sequence has given: a read that went up to it would leave the
watermark above all that the sequence gives from now on. A sequence may as well stand still while programs, dumps or a
replication number the rows. Which of both it is shows in the greatest values: the rows of a sequence that counts them
end at what it has given, but for a few.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infrastructure.sql import quote
from infrastructure.stores.cursor_axis import Axis
from infrastructure.stores.cursors import integer_of
from infrastructure.stores.postgres.numbering import Counter, Numbering
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession

# Half of so many greatest values may be of rows that somebody else numbers; as many as these may be in a row.
_LOOKED_AT, _GOES_ON = 1000, 20


@dataclass(frozen=True)
class Reach:
    """How far a read may go: the greatest value of it, the number from which on rows are held back, and in words what
    is held back and what is not known.
    """

    greatest: int | None
    held_from: int | None = None
    held: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def reach(
    session: PostgresSession,
    selection: Selection,
    axis: Axis,
    numbering: Numbering,
    seen: int | None,
    lo: str | None,
) -> Reach:
    """Say how far a read may go whose greatest value is `seen`, in the same snapshot.

    Rows above what a sequence has given are held back where the sequences count what is read: of several columns, as
    those of a UNION, above the one that is furthest behind. A watermark above it is obeyed: what lies below it is lost
    to this lane, and told, but for those who have put it there.
    """
    if not numbering.counters or any(each.is_hidden for each in numbering.counters):
        return Reach(seen)
    begin = integer_of(lo, axis.cursor, axis.kind) if lo is not None else None
    reached = max((each for each in (seen, None if begin is None else begin - 1) if each is not None), default=None)
    if reached is None:
        return Reach(None)
    idle = [each for each in numbering.counters if numbering.has_several and each.is_idle and each.start <= reached]
    fronts = [(each.front, each) for each in numbering.counters if each.front is not None]
    fronts.sort(key=lambda found: found[0])
    passed = [each for front, each in fronts if front <= reached]
    ahead = [(front, each) for front, each in fronts if front <= reached and (begin is None or begin <= front)]
    name = axis.cursor.column
    if ahead and _are_counted(session, selection, name, fronts[-1], reached, is_followed=begin is not None):
        front, lowest = ahead[0]
        below = f"{quote(name)} OPERATOR(pg_catalog.<) {front}"
        rows = session.execute(f"SELECT max({quote(name)})::text FROM {selection.text} WHERE {below}")
        told = (
            f"Rows have a {name} up to {seen}, above {lowest.last}, the last that the sequence {lowest.name} has "
            "given: they are read when it gets there, or from a watermark above that on ('pipelines reset --to')."
        )
        passed = passed[: -len(ahead)]
        return Reach(axis.read(rows[0][0]), front, (told,), _passed(name, reached, [*idle, *passed]))
    return Reach(seen, unknown=_passed(name, reached, [*idle, *passed]))


def _passed(name: str, reached: int, counters: Sequence[Counter]) -> tuple[str, ...]:
    """Say of sequences that reads have come further than they are."""
    given = {each.name: "nothing yet" if each.last is None else f"{each.last} at most" for each in counters}
    return tuple(
        f"Reads of {name} have come to {reached}, and the sequence {sequence} has given {what}: "
        "rows that it numbers until it gets there are not read. Let it go on above that (setval), or take it from the "
        "column's default if it numbers none; 'pipelines reset --to' reads from a lower watermark again."
        for sequence, what in given.items()
    )


def _are_counted(
    session: PostgresSession,
    selection: Selection,
    name: str,
    foremost: tuple[int, Counter],
    reached: int,
    *,
    is_followed: bool,
) -> bool:
    """Whether the sequences count the rows, by those above the foremost."""
    front, counter = foremost
    if reached < front:
        return True
    rows = session.execute(
        f"SELECT number::text FROM (SELECT {quote(name)} AS number FROM {selection.text} "
        f"WHERE {quote(name)} IS NOT NULL ORDER BY {quote(name)} DESC LIMIT {_LOOKED_AT}) AS numbers"
    )
    greatest = sorted((int(text) for (text,) in rows), reverse=True)
    return _is_counted(greatest, front, counter.increment, is_followed=is_followed)


def _is_counted(greatest: Sequence[int], front: int, increment: int, *, is_followed: bool) -> bool:
    """Whether a sequence counts the rows of which these are the greatest values: those from its front on are few, and
    do not go on counting where it stands. A lane that has followed it so far needs no rows below, which may be gone.
    """
    above = sum(value >= front for value in greatest)
    if above >= _GOES_ON and 2 * above > (greatest[0] - front) // increment + 1:
        return False
    return above < _LOOKED_AT // 2 and (is_followed or 2 * above <= len(greatest))
