"""How far a read by a number may go that a sequence of Postgres counts: rows may have numbers that it gives only later.

Somebody inserts a row with a number far above what the sequence has given: a read that went up to it would leave the
watermark above all that the sequence gives from now on. A sequence may as well stand still while programs, dumps or a
replication number the rows. Which of both it is shows in the greatest values: the rows of a sequence that counts them
end at what it has given, but for a few.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infrastructure.sql import quote
from infrastructure.stores.cursor_axis import ENDLESS, Axis
from infrastructure.stores.cursors import integer_of
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession

_AMONG = "= ANY (string_to_array($1, ','))"
_IS_NEXT = "'^nextval[(]''([^'']|'''')*''::regclass[)]$'"
# What a sequence has given is the same in every snapshot. A standby has no unlogged ones.
_COUNTERS = (
    "WITH numbering AS (SELECT d.objid AS id, d.deptype = 'i' AS counts FROM pg_depend d JOIN pg_attribute a "
    "ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_class'::regclass AND d.refclassid "
    f"= 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjid::text {_AMONG} AND a.attname = $2 "
    f"UNION ALL SELECT d.refobjid, pg_get_expr(f.adbin, f.adrelid) ~ {_IS_NEXT} FROM pg_attrdef f "
    "JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum JOIN pg_depend d ON d.classid "
    "= 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass WHERE f.adrelid::text "
    f"{_AMONG} AND a.attname = $2), found AS (SELECT id, bool_or(counts) AS counts FROM numbering GROUP BY id) "
    "SELECT c.relname::text, s.seqcache, s.seqincrement, f.counts AND NOT s.seqcycle AND NOT EXISTS "
    f"(SELECT FROM pg_subscription_rel WHERE srrelid::text {_AMONG}), has_sequence_privilege(c.oid, 'USAGE, SELECT'), "
    "CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') AND (c.relpersistence <> 'u' OR NOT "
    "pg_is_in_recovery()) THEN pg_sequence_last_value(c.oid) END, s.seqmax "
    "FROM found f JOIN pg_sequence s ON s.seqrelid = f.id JOIN pg_class c ON c.oid = f.id ORDER BY 1"
)
# Half of so many greatest values may be of rows that somebody else numbers; as many as these may be in a row.
_LOOKED_AT, _GOES_ON = 1000, 20


@dataclass(frozen=True)
class Counter:
    """A sequence that belongs to the column of a cursor, or that its default asks.

    `counts` says that the column's default or identity is its next number, and that nothing else is known to fill the
    table; `last` is what it has given or lent to a session, None where that is nothing or cannot be read.
    """

    name: str
    cache: int
    increment: int
    counts: bool
    is_readable: bool
    last: int | None
    most: int

    @property
    def counts_up(self) -> bool:
        """Whether later rows have greater numbers."""
        return self.counts and self.increment > 0

    @property
    def is_hidden(self) -> bool:
        """Whether it counts the rows and this role may not see how far."""
        return self.counts_up and not self.is_readable

    @property
    def front(self) -> int | None:
        """The least number that it may still give, if it has given some and can go on."""
        if not self.counts_up or self.last is None or self.last > self.most - self.increment:
            return None
        return self.last + self.increment

    @property
    def unknown(self) -> str | None:
        """What it leaves unknown, with the remedy."""
        if self.increment < 0:
            return f"The sequence {self.name} counts down, so later rows come below a read: take another cursor."
        if self.cache > 1:
            return (
                f"Each session keeps {self.cache} numbers of the sequence {self.name} and may use them late: ALTER "
                "SEQUENCE … CACHE 1, or give the cursor a hold_back above what all sessions may keep."
            )
        if self.is_hidden:
            return (
                f"This role may not see what the sequence {self.name} has given, so a row with a number above that "
                f"would take the watermark along, and what it gives later would not be read: GRANT SELECT ON SEQUENCE "
                f"{self.name}."
            )
        return None


@dataclass(frozen=True)
class Reach:
    """How far a read may go: the greatest value of it, the number from which on rows are held back, and in words what
    is held back and what is not known.
    """

    greatest: int | None
    held_from: int | None = None
    held: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def counters(session: PostgresSession, axis: Axis, relations: str) -> list[Counter]:
    """Find the sequences of a cursor's column in the relations that a read touches. Later than its greatest value, so
    that they have given all that was seen; before its transactions, so that what begins later is given more.
    """
    if not axis.is_integer:
        return []
    return [Counter(*row) for row in session.execute(_COUNTERS, (relations, axis.cursor.column))]


def reach(
    session: PostgresSession,
    selection: Selection,
    axis: Axis,
    numbering: Sequence[Counter],
    seen: int | None,
    lo: str | None,
) -> Reach:
    """Say how far a read may go whose greatest value is `seen`, in the same snapshot.

    Rows above what the sequence has given are held back where it counts the table. Of several it is the foremost one.
    A watermark above it is obeyed: what lies below it is lost to this lane, and told, but for those who have put it
    there.
    """
    leading = max(numbering, key=lambda each: -ENDLESS if each.front is None else each.front, default=None)
    if leading is None or (front := leading.front) is None or any(each.is_hidden for each in numbering):
        return Reach(seen)
    begin = integer_of(lo, axis.cursor, axis.kind) if lo is not None else None
    reached = max(each for each in (front - 1, seen, begin - 1 if begin is not None else None) if each is not None)
    if reached < front:
        return Reach(seen)
    name = axis.cursor.column
    if begin is None or begin <= front:
        rows = session.execute(
            f"SELECT number::text FROM (SELECT {quote(name)} AS number FROM {selection.text} "
            f"WHERE {quote(name)} IS NOT NULL ORDER BY {quote(name)} DESC LIMIT {_LOOKED_AT}) AS numbers"
        )
        greatest = sorted((int(text) for (text,) in rows), reverse=True)
        if _is_counted(greatest, front, leading.increment, is_followed=begin is not None):
            told = (
                f"Rows have a {name} up to {seen}, above {leading.last}, the last that the sequence {leading.name} has "
                "given: they are read when it gets there, or from a watermark above that on ('pipelines reset --to')."
            )
            return Reach(next((value for value in greatest if value < front), None), front, held=(told,))
    told = (
        f"Reads of {name} have come to {reached}, and the sequence {leading.name} has given {leading.last} at most: "
        "rows that it numbers until it gets there are not read. Let it go on above that (setval), or take it from the "
        "column's default if it numbers none; 'pipelines reset --to' reads from a lower watermark again."
    )
    return Reach(seen, unknown=(told,))


def _is_counted(greatest: Sequence[int], front: int, increment: int, *, is_followed: bool) -> bool:
    """Whether a sequence counts the rows of which these are the greatest values: those from its front on are few, and
    do not go on counting where it stands. A lane that has followed it so far needs no rows below, which may be gone.
    """
    above = sum(value >= front for value in greatest)
    if above >= _GOES_ON and 2 * above > (greatest[0] - front) // increment + 1:
        return False
    return above < _LOOKED_AT // 2 and (is_followed or 2 * above <= len(greatest))
