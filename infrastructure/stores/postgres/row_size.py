"""Rows of a Postgres source that are larger than a batch: the server refuses them before it sends them.

A driver takes a row whole before anybody can look at it, and one value may have a gigabyte. So the statement that
selects rows measures each and fails by itself, in words that no value can be mistaken for. The length of a text is in
its header; nothing is unpacked.
"""

import re
from collections.abc import Sequence

from domain.errors import PlatformError
from infrastructure.sql import quote
from infrastructure.stores.postgres.reserved import Catalog
from infrastructure.tabular.arrow import row_too_large

# The longest text of a value, of types that have one; what is not here has none that is worth the name.
_LONGEST = {
    **dict.fromkeys(("boolean", "smallint", "integer", "bigint", "real", "double precision", "date", "uuid"), 40),
    **dict.fromkeys(("time without time zone", "time with time zone", "interval", "name", "inet", "cidr"), 100),
    **dict.fromkeys(("timestamp without time zone", "timestamp with time zone", "money", "oid", "macaddr"), 100),
    "numeric": 131_072 + 16_383 + 2,
}
_NUMERIC = re.compile(r"numeric\([0-9]+,-?[0-9]+\)")
_CHARACTERS = re.compile(r"character(?: varying)?\(([0-9]+)\)")
# What a table stores as it is sent. All else is written out, and may be written out longer than it is stored: ten bytes
# are a number of 131,072 digits, in jsonb and in arrays too.
_STORED = re.compile(r"text|bytea|json|xml|character( varying)?(\([0-9]+\))?")
_SHORT = 4096
# lz4 spends a byte on at most 255, pglz three on at most 273.
_MOST_PACKED = 255
# A row lies in one block of one table, and what does not fit there in the one table beside it. What is computed when it
# is read, and what others keep, may have any length.
_ROOM = """
WITH RECURSIVE tree AS (
  SELECT to_regclass($1)::oid AS oid UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
SELECT coalesce(bool_and((c.relkind = 'p' OR (c.relkind IN ('r', 'm') AND m.amname = 'heap')) AND NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated NOT IN ('', 's'))), false),
  coalesce(max(pg_relation_size(nullif(c.reltoastrelid, 0))), 0) + current_setting('block_size')::int
FROM tree t JOIN pg_class c ON c.oid = t.oid LEFT JOIN pg_am m ON m.oid = c.relam"""
_SAID = re.compile(r"headrace: a row of [0-9]+ bytes, most in column ([0-9]+)")


def longest(native: str) -> int | None:
    """How many bytes a value of a type may have at most when it is sent; None where nothing says so."""
    if found := _CHARACTERS.fullmatch(native):
        most = 4 * int(found[1])
        return most if most <= _SHORT else None
    return 1_100 if _NUMERIC.fullmatch(native) else _LONGEST.get(native)


def measured(natives: Sequence[str], most: int) -> list[int]:
    """Which columns, by their place, have to be measured so that no row has more than so many bytes."""
    lengths = [longest(native) for native in natives]
    if None not in lengths and sum(length or 0 for length in lengths) <= most:
        return []
    return [place for place, length in enumerate(lengths) if length is None or length > _SHORT]


def has_room(session: Catalog, table: str, natives: Sequence[str], most: int) -> bool:
    """Whether a row of a table may have more than so many bytes, by the files that it is stored in.

    It is asked in the transaction that reads: the files have at least what its snapshot shows.
    """
    if any(longest(native) is None and not _STORED.fullmatch(native) for native in natives):
        return True
    is_plain, stored = session.execute(_ROOM, (table,))[0]
    return not is_plain or int(stored) * _MOST_PACKED > most


def refusing(query: str, names: Sequence[str], places: Sequence[int], keys: Sequence[str], most: int) -> str:
    """Wrap a query so that it fails at a row that has more than so many bytes in the columns at these places.

    `names` are its columns that are wanted and `keys` those by which it is ordered. The inner query stays one of its
    own, so that nothing is computed twice or at the time of planning.
    """
    lengths = [f"pg_catalog.octet_length(sent.{quote(names[place])})" for place in places]
    together = " OPERATOR(pg_catalog.+) ".join(["0::pg_catalog.int8", *(f"coalesce({one}, 0)" for one in lengths)])
    largest = f"pg_catalog.array_position(ARRAY[{', '.join(lengths)}], greatest({', '.join(lengths)}))"
    said = f"pg_catalog.concat('headrace: a row of ', {together}, ' bytes, most in column ', {largest})"
    first = f"sent.{quote(names[places[0]])}"
    # The failure is in a branch of its own, as no other order of evaluation is promised.
    refused = f"CASE WHEN CAST({said} AS pg_catalog.int4) IS NULL THEN NULL ELSE {first} END"
    watched = f"CASE WHEN ({together}) OPERATOR(pg_catalog.>) {most:d}::pg_catalog.int8 THEN {refused} ELSE {first} END"
    columns = [
        f"{watched} AS {quote(name)}" if place == places[0] else f"sent.{quote(name)}"
        for place, name in enumerate(names)
    ]
    ordered = f" ORDER BY {', '.join(f'sent.{quote(key)}' for key in keys)}" if keys else ""
    return f"SELECT {', '.join(columns)} FROM ({query} OFFSET 0) AS sent{ordered}"


def told(error: PlatformError, names: Sequence[str], places: Sequence[int], most: int) -> PlatformError | None:
    """Say in our words that a wrapped query failed at a row; None if it failed with anything else."""
    said = _SAID.search(str(error.__cause__))
    number = int(said[1]) if said else 0
    return row_too_large(most, names[places[number - 1]]) if 0 < number <= len(places) else None
