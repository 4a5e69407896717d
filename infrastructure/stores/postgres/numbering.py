"""Which sequences of Postgres give the values of a cursor's column, by where that column comes from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infrastructure.queries.postgres_origins import Base, Table, TableColumn
from infrastructure.stores.cursor_axis import Axis
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession

_AMONG = "= ANY (string_to_array($1, ','))"
_IS_NEXT = "'^nextval[(]''([^'']|'''')*''::regclass[)]$'"
# A sequence whose name is a text has no dependency. The default of a domain is none of the column's own.
_COUNTERS = f"""
WITH defaults AS (
  SELECT f.oid, f.adrelid AS number, a.attname, pg_get_expr(f.adbin, f.adrelid) AS text
  FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
  WHERE f.adrelid::text {_AMONG} AND a.attgenerated = ''),
needed AS (
  SELECT f.*, d.refclassid, d.refobjid FROM defaults f
  JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid),
numbering AS (
  SELECT d.refobjid AS number, a.attname, d.objid AS id, d.deptype = 'i' AS counts
  FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    AND d.refobjid::text {_AMONG}
  UNION ALL SELECT number, attname, refobjid, text ~ {_IS_NEXT} FROM needed WHERE refclassid = 'pg_class'::regclass),
found AS (SELECT number, attname, id, bool_or(counts) AS counts FROM numbering GROUP BY 1, 2, 3)
SELECT f.number::bigint, f.attname::text, c.relname::text, s.seqcache, s.seqincrement,
  f.counts AND NOT s.seqcycle AND NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid::text {_AMONG}),
  has_sequence_privilege(c.oid, 'USAGE, SELECT'),
  CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') AND (c.relpersistence <> 'u' OR NOT pg_is_in_recovery())
    THEN pg_sequence_last_value(c.oid) END, s.seqstart, s.seqmax, c.oid::bigint
FROM found f JOIN pg_sequence s ON s.seqrelid = f.id JOIN pg_class c ON c.oid = f.id
UNION ALL SELECT n.number::bigint, n.attname::text, p.proname::text, 1, 0, false, true, NULL, 0, 0, 0
FROM needed n JOIN pg_proc p ON n.refclassid = 'pg_proc'::regclass AND p.oid = n.refobjid
UNION ALL SELECT f.number::bigint, f.attname::text, 'nextval', 1, 0, false, true, NULL, 0, 0, 0
FROM defaults f WHERE f.text ~ 'nextval[(]' AND NOT EXISTS (
  SELECT FROM needed n JOIN pg_sequence s ON s.seqrelid = n.refobjid WHERE n.oid = f.oid)
UNION ALL SELECT a.attrelid::bigint, a.attname::text, t.typname::text, 1, 0, false, true, NULL, 0, 0, 0
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid::text {_AMONG} AND a.attnum > 0 AND t.typtype = 'd' AND t.typdefaultbin IS NOT NULL AND NOT a.atthasdef
ORDER BY 3"""
# What a generated column is made of depends on the version: its default needs it, or the column itself. Thousands of
# parts, which nobody names beside their table, have no columns of their own.
_TABLES = f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, pg_table_is_visible(c.oid), CASE WHEN NOT EXISTS (
    SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent::text {_AMONG}) THEN (
    SELECT coalesce(json_agg(json_build_array(a.attname, CASE WHEN a.attgenerated <> '' THEN (
      SELECT coalesce(json_agg(DISTINCT b.attname::text), '[]') FROM pg_depend d
      JOIN pg_attribute b ON b.attrelid = d.refobjid AND b.attnum = d.refobjsubid
      WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND b.attnum <> a.attnum
        AND ((d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = a.attnum)
          OR (d.classid = 'pg_attrdef'::regclass AND d.objid IN (
            SELECT f.oid FROM pg_attrdef f WHERE f.adrelid = c.oid AND f.adnum = a.attnum)))) END) ORDER BY a.attnum),
      '[]') FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END::text,
  CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END,
  (SELECT coalesce(json_agg(i.inhparent::bigint), '[]') FROM pg_inherits i WHERE i.inhrelid = c.oid)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid::text {_AMONG}"""


@dataclass(frozen=True)
class Counter:
    """A sequence that belongs to a column of a table, or that its default asks; or a function or domain by which that
    is, and of which nothing else is known.

    `counts` says that the column's default or identity is its next number, and that nothing else is known to fill the
    table; `last` is what it has given or lent to a session, None where that is nothing or cannot be read.
    """

    table: int
    column: str
    name: str
    cache: int
    increment: int
    counts: bool
    is_readable: bool
    last: int | None
    start: int
    most: int
    number: int

    @property
    def counts_up(self) -> bool:
        """Whether later rows have greater numbers."""
        return self.counts and self.increment > 0

    @property
    def is_hidden(self) -> bool:
        """Whether it counts the rows and this role may not see how far."""
        return self.counts_up and not self.is_readable

    @property
    def is_idle(self) -> bool:
        """Whether it would count the rows and has given no number yet."""
        return self.counts_up and self.is_readable and self.last is None

    @property
    def front(self) -> int | None:
        """The least number that it may still give, if it has given some and can go on."""
        if not self.counts_up or self.last is None or self.last > self.most - self.increment:
            return None
        return self.last + self.increment

    @property
    def in_words(self) -> str:
        """What it is, with its name."""
        return f"the sequence {self.name}" if self.number else self.name

    @property
    def unknown(self) -> str | None:
        """What it leaves unknown, with the remedy."""
        if not self.number:
            return (
                f"The default of {self.column} is by {self.name}, which may ask a sequence that cannot be seen here, "
                "so later rows may come below a read: let the default itself be nextval of a sequence, or take another "
                "cursor."
            )
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
class Numbering:
    """The sequences that number what a cursor goes by, whether its values come from several columns, and what is not
    known of them.
    """

    counters: tuple[Counter, ...] = ()
    has_several: bool = False
    unknown: tuple[str, ...] = ()


def numbering(session: PostgresSession, selection: Selection, axis: Axis, relations: str) -> Numbering:
    """Find the sequences of a cursor's column, by the columns of the relations that a read touches from which its
    values come. Later than its greatest value, so that they have given all that was seen; before its transactions, so
    that what begins later is given more.
    """
    found = [Counter(*row) for row in session.execute(_COUNTERS, (relations,))] if axis.is_integer else []
    if not found:
        return Numbering()
    tables, parents = [], {}
    for number, schema, name, is_visible, columns, definition, above in session.execute(_TABLES, (relations,)):
        parents[number] = json.loads(above)
        if columns is not None:
            shown = (TableColumn(of, tuple(made) if made is not None else None) for of, made in json.loads(columns))
            tables.append(Table(number, schema, name, is_visible, tuple(shown), definition))
    origin = session.queries.origin(selection.text, axis.cursor.column, tables)
    computed = found if origin.computed is None else _of(found, origin.computed, parents)
    if computed:
        return Numbering(unknown=(_not_followed(axis.cursor.column, computed),))
    counters = _of(found, origin.columns, parents)
    unknown = dict.fromkeys(each.unknown for each in counters if each.unknown is not None)
    return Numbering(tuple(counters), len(origin.columns) > 1, tuple(unknown))


def _of(found: Iterable[Counter], columns: Iterable[Base], parents: Mapping[int, list[int]]) -> list[Counter]:
    """The sequences of some columns, each once. What the parts and children of a table have of their own counts only
    where the table has none: else rows come by that.
    """
    by_number, waiting, looked_at = dict[tuple[int, str], Counter](), list(columns), set[Base]()
    while waiting:
        table, column = waiting.pop()
        if (table, column) in looked_at:
            continue
        looked_at.add((table, column))
        own = [each for each in found if (each.table, each.column) == (table, column)]
        by_number |= {(each.number, each.name): each for each in own}
        if not any(each.front is not None or each.unknown is not None for each in own):
            waiting += [(child, column) for child, above in parents.items() if table in above]
    return sorted(by_number.values(), key=lambda each: each.name)


def _not_followed(column: str, found: Iterable[Counter]) -> str:
    names = ", ".join(dict.fromkeys(each.in_words for each in found))
    return (
        f"The source computes {column}, or takes it from where it cannot be followed to the column of a table, while "
        f"rows of what is read are numbered by {names}: later rows may come below a read. Select the column of the "
        "table itself, under any name, or take another cursor."
    )
