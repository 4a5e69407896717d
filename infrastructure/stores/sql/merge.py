"""Merging by key in SQL: the one statement that updates, inserts and deletes, and what a full read no longer has."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from domain.errors import QualityRejectedError
from domain.loads.checkpoint import Merged
from domain.pipelines.spec import DeleteMissing
from domain.ports.data_store import Target
from domain.rule_results import RuleResult
from domain.stores.table import DELETED, DELETED_AT, LOADED_AT, RUN_ID, SEQ
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.overtaken import Compared
from infrastructure.stores.sql.session import Session


@dataclass(frozen=True)
class Merge:
    """A merge of rows into the target's table, of each key the row with the greatest `_headrace_seq`.

    `using` is a FROM item with the columns `names`, the number, and whether the row is deleted. With `is_exact` keys
    that are equal are written alike; else a row that is updated gets the key too, as the last row writes it. A batch,
    `is_batch`, has one row for each way in which a key is written, and a whole table, `is_whole`, has one for each key
    and no number. Columns that are `numbered` by the store are inserted and never updated.
    """

    using: str
    names: Sequence[str]
    target: Target
    is_exact: bool = False
    is_batch: bool = False
    is_whole: bool = False
    numbered: Collection[str] = ()
    overriding: str = ""

    @property
    def key(self) -> str:
        """The columns of the key."""
        return ", ".join(quote(name) for name in self.target.key)

    @property
    def is_distinct(self) -> bool:
        """Whether no key comes twice."""
        return self.is_whole or (self.is_exact and self.is_batch)

    @property
    def rows(self) -> str:
        """The last rows as a FROM item, in the order of the key, so that two merges wait for each other's rows in one
        direction only. What is one key, the store says.
        """
        if self.is_distinct:
            return f"(SELECT * FROM {self.using} ORDER BY {self.key})"
        return f"(SELECT DISTINCT ON ({self.key}) * FROM {self.using} ORDER BY {self.key}, {quote(SEQ)} DESC)"

    @property
    def on(self) -> str:
        """Say that a row of the table and one of `rows` have the same key."""
        return " AND ".join(f"target.{quote(name)} = source.{quote(name)}" for name in self.target.key)

    @property
    def is_older(self) -> str:
        """Say that the row of the table is to be changed by the one that comes for it."""
        if self.target.newest_by is None:
            return "true"
        newest_by = quote(self.target.newest_by)
        return f"NOT coalesce(target.{newest_by} >= source.{newest_by}, false)"

    def compared(self, session: Session) -> list[Compared]:
        """Compare each row, in their order, with the table and with the others."""
        seq, newest_by = quote(SEQ), self.target.newest_by
        rank, later = "NULL", set[int]()
        there = self._there(session, self.on)
        if newest_by is not None:
            cursor = quote(newest_by)
            later = self._there(session, f"{self.on} AND target.{cursor} >= source.{cursor}")
            rank = f"CASE WHEN {cursor} IS NOT NULL THEN rank() OVER (PARTITION BY {self.key} ORDER BY {cursor}) END"
        rows = session.execute(
            f"SELECT {seq}, min({seq}) OVER (PARTITION BY {self.key}), CAST({rank} AS BIGINT) "
            f"FROM (SELECT * FROM {self.using}) AS source"
        )
        return [Compared(key, number in there, number in later, place) for number, key, place in sorted(rows)]

    def _there(self, session: Session, condition: str) -> set[int]:
        """The numbers of the rows of which the table has one. In WHERE, as anywhere else it is a query for each."""
        found = f"SELECT 1 FROM {quote_table(self.target.table)} AS target WHERE {condition}"
        rows = session.execute(
            f"SELECT {quote(SEQ)} FROM (SELECT * FROM {self.using}) AS source WHERE EXISTS ({found})"
        )
        return {number for (number,) in rows}

    @property
    def statement(self) -> str:
        """The one statement. A row that is there again is not marked as missing any more."""
        target, deletes = self.target, self.target.deletes
        kept = {*self.numbered, *(target.key if self.is_exact else ())}
        changed = [f"{quote(name)} = source.{quote(name)}" for name in self.names if name not in kept]
        if target.delete_missing is DeleteMissing.SOFT:
            changed.append(f"{quote(DELETED_AT)} = NULL")
        inserted = ", ".join(quote(name) for name in self.names)
        values = ", ".join(f"source.{quote(name)}" for name in self.names)
        parts = [f"MERGE INTO {quote_table(target.table)} AS target USING {self.rows} AS source ON {self.on}"]
        if target.newest_by is not None:
            newest_by = quote(target.newest_by)
            parts.append(f"WHEN MATCHED AND target.{newest_by} >= source.{newest_by} THEN DO NOTHING")
        if deletes:
            parts.append(f"WHEN MATCHED AND source.{quote(DELETED)} THEN DELETE")
        if changed:
            parts.append(f"WHEN MATCHED THEN UPDATE SET {', '.join(changed)}")
        living = f" AND NOT source.{quote(DELETED)}" if deletes else ""
        parts.append(f"WHEN NOT MATCHED{living} THEN INSERT ({inserted}){self.overriding} VALUES ({values})")
        return " ".join(parts)

    def repeated(self, session: Session) -> int:
        """Count the rows that are not the last of their key."""
        if self.is_distinct:
            return 0
        counted = f"SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT {self.key} FROM {self.using}) AS keys)"
        rows, keys = session.execute(f"{counted} FROM {self.using}")[0]
        return int(rows) - int(keys)


def merged_by(actions: Iterable[tuple[str, int]], repeated: int) -> Merged:
    """Name what a merge did from how often it did what."""
    done = dict(actions)
    return Merged(done.get("INSERT", 0), done.get("UPDATE", 0), done.get("DELETE", 0), repeated)


def merge_stage(session: Session, target: Target, names: Sequence[str], loaded_at: datetime) -> Merged:
    """Merge a staging table into its target.

    Raises:
        QualityRejectedError: `delete_missing` would reach more than its share (`delete_missing.share`).
    """
    assert target.shadow is not None
    stage = quote_table(target.table.beside(target.shadow))
    session.execute(f"ANALYZE {stage}")
    moment, names, using = f"CAST('{loaded_at.isoformat()}' AS {session.type_name('timestamptz')})", list(names), stage
    if target.metadata_columns:
        using = f"(SELECT *, {moment} AS {quote(LOADED_AT)} FROM {stage}) AS staged"
        names.append(LOADED_AT)
    if session.hold(target.table, target.key) is None:
        raise landing_gone(target.table)
    gone = 0
    if target.replaces:
        session.clear(target.table.beside(target.shadow), target.table, target.key)
    elif target.delete_missing is not None:
        gone = _delete_missing(session, target, moment)
    merged = session.merge_from(using, names, target)
    session.execute(f"DROP TABLE {stage}")
    return replace(merged, deleted=merged.deleted + gone)


def _delete_missing(session: Session, target: Target, moment: str) -> int:
    """Delete or mark the rows whose key the run did not read, by an anti-join over the keys alone; return how many."""
    assert target.shadow is not None
    stage, table = quote_table(target.table.beside(target.shadow)), quote_table(target.table)
    same = " AND ".join(f"staged.{quote(name)} = target.{quote(name)}" for name in target.key)
    # Always a condition of WHERE: there it is an anti-join, and anywhere else a query for each row.
    missing = f"NOT EXISTS (SELECT 1 FROM {stage} AS staged WHERE {same})"
    is_soft = target.delete_missing is DeleteMissing.SOFT
    living = f"target.{quote(DELETED_AT)} IS NULL" if is_soft else "true"
    there, gone = session.execute(
        f"SELECT (SELECT count(*) FROM {table} AS target WHERE {living}), "
        f"(SELECT count(*) FROM {table} AS target WHERE {living} AND {missing})"
    )[0]
    if gone > target.max_deleted_share * there:
        raise too_many_missing(int(gone), int(there), target.max_deleted_share)
    if is_soft:
        marked = f"{quote(DELETED_AT)} = {moment}"
        session.execute(f"UPDATE {table} AS target SET {marked} WHERE {living} AND {missing}")
    else:
        session.execute(f"DELETE FROM {table} AS target WHERE {missing}")
    return int(gone)


def too_many_missing(gone: int, there: int, share: float) -> QualityRejectedError:
    """Say that a full read lacks more keys than it may."""
    error = QualityRejectedError(
        f"{gone:,} of {there:,} rows of the destination are missing in the source, more than max_deleted_share "
        f"({share:g}) allows; nothing of the run was published. Look at the source, or raise the share.",
        code="delete_missing.share",
    )
    measured = gone / there if there else 0.0
    error.results = (RuleResult("max_deleted_share", "run", "fail", "fail", there, gone, measured, share),)
    return error


def merged_names(target: Target) -> list[str]:
    """The staged columns that go into the table."""
    names = [column.name for column in target.columns]
    return [*names, RUN_ID] if target.metadata_columns else names
