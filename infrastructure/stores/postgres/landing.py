"""Whether a landing table of a Postgres is the one it was, and still has the rows that a load has put there."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.stores.table import RUN_ID, TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.postgres.catalog import COLUMNS_AS_JSON
from infrastructure.stores.postgres.hiding import may_suppress

# A table and the file that it lies in, or the files of its partitions; TRUNCATE and whatever writes it anew gives it
# another.
_IDENTITY = """c.oid::text || ':' || CASE c.relkind WHEN 'p' THEN (
    SELECT coalesce(string_agg(l.oid::text || '/' || l.relfilenode::text, ',' ORDER BY l.oid), '')
    FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid WHERE p.isleaf)
  ELSE c.relfilenode::text END"""
# A foreign table or a view would have to be asked at length, and a table that may only be written to answers nothing,
# nor does one of which a policy may hide every row.
_MAY_BE_LOOKED_AT = (
    "c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)"
)
_OF_TABLE = "FROM pg_class c WHERE c.oid = to_regclass($1)"
_LOOK = (
    f"SELECT (SELECT n.nspname::text FROM pg_namespace n WHERE n.oid = c.relnamespace), {_IDENTITY}, "
    f"{_MAY_BE_LOOKED_AT}, ({COLUMNS_AS_JSON})::text {_OF_TABLE}"
)


@dataclass(frozen=True)
class Held:
    """What a table is while it is held: where its name leads, what tells it from another, whether it may be asked for
    rows, and (name, native type, nullable) of its columns.
    """

    schema: str | None
    identity: str | None
    may_be_looked_at: bool
    columns: tuple[tuple[str, str, bool], ...]


class LooksAtLandings(ABC):
    """Asks a session of tables in which rows land; of those that its transaction holds, it knows what was told."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""

    def look_at(self, table: TableName) -> Held:
        """Ask all that a batch has to know of a table that is held from here on, at once: each question is a round
        trip.
        """
        held = Held(table.schema, None, may_be_looked_at=False, columns=())
        if found := self.execute(_LOOK, (quote_table(table),)):
            schema, told, may_be_looked_at, columns = found[0]
            names = tuple((name, kind, is_null) for name, kind, is_null in json.loads(columns))
            held = Held(schema, told, bool(may_be_looked_at), names)
        self._held[str(table)] = held
        return held

    def identity(self, table: TableName) -> str | None:
        """Tell a table from one that took its place, or from itself written anew; None where there is none."""
        if (held := self._held.get(str(table))) is not None:
            return held.identity
        found = self.execute(f"SELECT {_IDENTITY} {_OF_TABLE}", (quote_table(table),))
        return str(found[0][0]) if found else None

    def is_filled(self, table: TableName) -> bool | None:
        """Whether a table has any row; None where that may not be asked."""
        if not self._may_be_looked_at(table):
            return None
        return bool(self.execute(f"SELECT EXISTS (SELECT 1 FROM {quote_table(table)})")[0][0])

    def keeps_rows(self, table: TableName, before: str, runs: Sequence[str] | None) -> bool:
        """Whether a table that is not told as before still has rows from before, or rows of these runs."""
        now = self.identity(table) or ""
        if now.partition(":")[0] != before.partition(":")[0]:
            return False
        if _has_kept_a_file(before, now) or not self._may_be_looked_at(table):
            return True
        if runs and may_suppress(self, table):
            runs = ()  # A trigger that writes to the rows of others leaves them their run.
        sql, values = _kept_rows(table, runs, is_partitioned=not now.partition(":")[2].isdigit())
        return bool(self.execute(sql, values)[0][0])

    def _may_be_looked_at(self, table: TableName) -> bool:
        """Whether asking what rows a table has gets an answer, and soon."""
        if (held := self._held.get(str(table))) is not None:
            return held.may_be_looked_at
        return bool(self.execute(f"SELECT {_MAY_BE_LOOKED_AT} {_OF_TABLE}", (quote_table(table),)) == [(True,)])


def _kept_rows(table: TableName, runs: Sequence[str] | None, *, is_partitioned: bool) -> tuple[str, tuple[str, ...]]:
    """Ask whether a table written anew has rows from before, as VACUUM FULL and CLUSTER leave them, or rows of these
    runs, as ALTER TABLE does; of any run where there is none, and None where rows carry no id of a run.

    Partitions come and go, so their age says nothing of the rows of others.
    """
    name, asked = quote_table(table), list[str]()
    if not is_partitioned:
        asked.append(f"EXISTS (SELECT 1 FROM {name} AS t WHERE age(t.xmin) > age(c.xmin))")
    if runs:
        known = "SELECT json_array_elements_text($2::json)"
        asked.append(f"EXISTS (SELECT 1 FROM {name} AS t WHERE t.{quote(RUN_ID)}::text IN ({known}))")
    elif runs is not None:
        asked.append(f"EXISTS (SELECT 1 FROM {name} AS t WHERE t.{quote(RUN_ID)} IS NOT NULL)")
    elif is_partitioned:
        asked.append(f"EXISTS (SELECT 1 FROM {name})")
    sql = f"SELECT {' OR '.join(asked)} FROM pg_class c WHERE c.oid = to_regclass($1)"
    return sql, (name, json.dumps(list(runs))) if runs else (name,)


def _has_kept_a_file(before: str, now: str) -> bool:
    """Whether a partition is still told as before: then nobody has truncated all of them."""
    return not {file for file in before.partition(":")[2].split(",") if "/" in file}.isdisjoint(
        now.partition(":")[2].split(",")
    )
