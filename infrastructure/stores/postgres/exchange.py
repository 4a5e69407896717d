"""Rows of a merge that pass unique values among themselves, which Postgres checks row by row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.errors import SchemaMismatchError
from domain.stores.table import DELETED
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.merge import Merge
from infrastructure.stores.sql.session import Session

_MOVED = "headrace_moved"

# Of each column: whether a unique index or an exclusion constraint that is checked row by row goes by it, whether it
# may be NULL there without two NULLs being alike, and whether the table computes it. Of the table: whether others refer
# to it, and what watches its rows.
_COLUMNS = """
WITH watched AS (
  SELECT i.indexrelid, i.indnullsnotdistinct AS is_strict, d.num
  FROM pg_index i CROSS JOIN LATERAL (
    SELECT unnest(i.indkey::int2[])::int AS num
    UNION SELECT refobjsubid FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND objid = i.indexrelid AND refobjid = i.indrelid) AS d
  WHERE i.indrelid = to_regclass($1) AND (i.indisunique OR i.indisexclusion) AND i.indimmediate AND d.num > 0)
SELECT a.attname::text, count(w.num) > 0,
  NOT a.attnotnull AND a.attidentity = '' AND a.attgenerated = '' AND NOT coalesce(bool_or(w.is_strict), false),
  a.attgenerated <> ''
FROM pg_attribute a LEFT JOIN watched w ON w.num = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped GROUP BY a.attnum, a.attname, a.attnotnull,
  a.attidentity, a.attgenerated ORDER BY a.attnum"""
_WATCHERS = """
SELECT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = to_regclass($1)),
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgtype & 16 <> 0),
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal AND tgtype & 12 <> 0)"""


@dataclass(frozen=True)
class Exchange:
    """Takes unique values away from the rows of a merge that give them up, before the merge gives them to others."""

    session: Session
    merging: Merge
    watched: tuple[str, ...]
    may_be_empty: frozenset[str]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, merging: Merge) -> "Exchange":
        """Ask which columns unique indexes watch."""
        columns = session.execute(_COLUMNS, (quote_table(merging.target.table),))
        written = {*merging.names} - {*merging.target.key}
        return cls(
            session,
            merging,
            watched=tuple(name for name, is_watched, *_ in columns if is_watched and name in written),
            may_be_empty=frozenset(name for name, _, may_be_empty, _ in columns if may_be_empty),
            kept=tuple(name for name, *_, made in columns if not made and name not in merging.names),
        )

    @property
    def _leaving(self) -> str:
        """Say of a row and what comes for it that it gives a watched value up."""
        merging, target = self.merging, self.merging.target
        changes = [f"target.{quote(name)} IS DISTINCT FROM source.{quote(name)}" for name in self.watched]
        if target.deletes:
            changes.append(f"source.{quote(DELETED)}")
        return f"{merging.on} AND {merging.is_older} AND ({' OR '.join(changes) or 'false'})"

    def make_way(self) -> int | None:
        """Make way for the merge; return how many rows that were to be deleted are gone already, None where no row
        gives a value up.

        Raises:
            SchemaMismatchError: that would reach other tables or wake triggers (`destination.exchange`).
        """
        session, table = self.session, quote_table(self.merging.target.table)
        rows = f"{table} AS target, {self.merging.rows} AS source"
        if not session.execute(f"SELECT 1 FROM {rows} WHERE {self._leaving} LIMIT 1"):
            return None
        is_referred, sees_updates, sees_moves = session.execute(_WATCHERS, (table,))[0]
        ways: list[Callable[[], int]] = []
        if set(self.watched) <= self.may_be_empty and self.watched and not sees_updates:
            ways.append(self._empty)
        if not is_referred and not sees_moves:
            ways.append(self._move)
        for way in ways:
            session.execute("SAVEPOINT headrace_way")
            try:
                return way()
            except SchemaMismatchError:
                session.execute("ROLLBACK TO SAVEPOINT headrace_way")
        raise SchemaMismatchError(
            f"Rows of {self.merging.target.table} exchange values of a unique or exclusion constraint "
            f"({', '.join(self.watched)}), which Postgres checks row by row, and "
            f"{'other tables refer to' if is_referred else 'a trigger watches'} them: make the constraint DEFERRABLE, "
            "and it is checked when all of them are there.",
            code="destination.exchange",
        )

    def _empty(self) -> int:
        """Let the rows have no value until the merge gives them one."""
        table, empty = (
            quote_table(self.merging.target.table),
            ", ".join(f"{quote(name)} = NULL" for name in self.watched),
        )
        self.session.execute(
            f"UPDATE {table} AS target SET {empty} FROM {self.merging.rows} AS source WHERE {self._leaving}"
        )
        return 0

    def _move(self) -> int:
        """Delete the rows and insert them as they will be, with what only the table knows of them."""
        session, merging = self.session, self.merging
        table, moved = quote_table(merging.target.table), f"pg_temp.{quote(_MOVED)}"
        session.execute(f"DROP TABLE IF EXISTS {moved}")
        session.execute(f"CREATE TEMPORARY TABLE {quote(_MOVED)} ON COMMIT DROP AS TABLE {table} WITH NO DATA")
        session.execute(
            f"WITH gone AS (DELETE FROM {table} AS target USING {merging.rows} AS source WHERE {self._leaving} "
            f"RETURNING target.*) INSERT INTO {moved} SELECT * FROM gone"
        )
        names = [*merging.names, *self.kept]
        values = [f"source.{quote(name)}" for name in merging.names] + [f"target.{quote(name)}" for name in self.kept]
        living = f" WHERE NOT source.{quote(DELETED)}" if merging.target.deletes else ""
        session.execute(
            f"INSERT INTO {table} ({_listed(names)}){session.overriding} SELECT {', '.join(values)} "
            f"FROM {moved} AS target JOIN {merging.rows} AS source ON {merging.on}{living}"
        )
        if not merging.target.deletes:
            return 0
        deleted = f"SELECT count(*) FROM {moved} AS target JOIN {merging.rows} AS source ON {merging.on}"
        return int(session.execute(f"{deleted} WHERE source.{quote(DELETED)}")[0][0])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(quote(name) for name in names)
