"""Refused rows and the later rows of their merge key, in SQL: what lands overtakes them, and a replay lands only what
nothing can have overtaken.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from domain.loads.checkpoint import Merged, Position
from domain.loads.quarantine import LEFT, PLACE, RefusedState
from domain.ports.data_store import JudgedBatch, Target
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landing_gone
from infrastructure.stores.overtaken import (
    Kept,
    Replayed,
    is_before,
    landing_keys,
    may_be_gone,
    overtaken_within,
    repaired,
)
from infrastructure.stores.replayed import still_open
from infrastructure.stores.sql.names import deletions_of, quarantines
from infrastructure.stores.sql.quarantine import at_places, mark_repaired, open_places
from infrastructure.stores.sql.session import CHECKPOINT, QUARANTINE, Session
from infrastructure.tabular.arrow import to_table

MOST_KEYS = 100_000
"""So many keys are remembered; where there are more, the store is asked with all keys of each batch."""
_PLACES = ", ".join(map(quote, PLACE))


class Overtaking:
    """Settles the refusals of which the batches of a stream land a later row; what there is, is asked once, at the
    first batch.
    """

    def __init__(self, session: Session, lane: Lane, target: Target, read_set_id: str) -> None:
        self._session = session
        self._target = target
        self._read_set_id = read_set_id
        self._mine = (lane.organization, lane.pipeline, str(target.table), read_set_id)
        self._settled = f"{session.aimed} AND {_SETTLED}"
        self._quarantines: list[str] = []
        self._keys: set[str] | None = None
        self._are_all_known = True

    def settle(self, batch: JudgedBatch) -> list[bool]:
        """Settle them in the transaction of a batch, whose own refused rows are not there yet; say which of these are
        overtaken too.

        What lands by batches does so at once, what is staged once the read set is published.
        """
        refused = to_table(batch.refused)
        if not self._target.merges:
            return [False] * refused.num_rows
        if self._keys is None:
            self._keys = self._known()
        own = {key for key in refused.column("merge_key").to_pylist() if key is not None}
        if not (self._keys or own) and self._are_all_known:
            return [False] * refused.num_rows
        landing = landing_keys(batch, self._target)
        self._settle(landing.keys() & self._keys if self._are_all_known else landing.keys())
        self._keys |= own
        return overtaken_within(batch, landing)

    @property
    def fate(self) -> tuple[RefusedState, str]:
        """The state of what is overtaken, and who has settled it."""
        if self._target.shadow is None:
            return RefusedState.SUPERSEDED, self._target.run_id
        return RefusedState.WAITING, self._read_set_id

    def _known(self) -> set[str]:
        self._quarantines = quarantines(self._session, self._target.table)
        keys = {
            key
            for quarantine in self._quarantines
            for (key,) in self._session.execute(
                f'SELECT DISTINCT "merge_key" FROM {quarantine} WHERE {self._settled} AND "merge_key" IS NOT NULL '
                f"LIMIT {MOST_KEYS + 1}",
                self._mine,
            )
        }
        self._are_all_known = len(keys) <= MOST_KEYS
        return keys if self._are_all_known else set()

    def _settle(self, keys: Collection[str]) -> None:
        if not keys:
            return
        state, by = self.fate
        moved = f"\"state\" = '{state}', " if state is RefusedState.SUPERSEDED else ""
        for quarantine in self._quarantines:
            self._session.execute(
                f'UPDATE {quarantine} SET {moved}"settled_by" = $5 WHERE {self._settled} '
                f"AND {self._session.among(quote('merge_key'), '$6')}",
                (*self._mine, by, ",".join(sorted(keys))),
            )


_SETTLED = (
    '"org" = $1 AND "pipeline" = $2 '
    f'AND ("state" = \'{RefusedState.OPEN}\' OR ("state" = \'{RefusedState.WAITING}\' AND "read_set" = $4))'
)


class Replaying:
    """Lands what is replayed into a table that is merged into."""

    def __init__(self, session: Session, lane: Lane, target: Target) -> None:
        self._session = session
        self._lane = lane
        self._target = target
        self._mine = (lane.organization, lane.pipeline)
        self._quarantine = quote_table(target.table.beside(QUARANTINE))
        self._left: frozenset[int] = frozenset()
        self._landed: dict[str, Position] = {}

    def still_open(self, batch: JudgedBatch, landing: TableName) -> tuple[JudgedBatch, Merged | None]:
        """Leave out what other runs have settled since it was read, in the transaction of a batch of any mode. The
        table comes first, as it does to whoever overtakes or replaces its rows.
        """
        session, target = self._session, self._target
        if target.merges:  # What is merged meanwhile may be later.
            session.lock_table(quote_table(landing))
        elif batch.accepted.num_rows and session.hold(landing) is None:
            raise landing_gone(landing)
        return still_open(batch, open_places(session, target.table, self._lane, batch.origins or ()), target)

    def merge(self, table: TableName, rows: pa.Table, columns: Sequence[Column], batch: JudgedBatch) -> Merged:
        """Merge rows, as `Session.merge` takes them, in the transaction of a batch; the table is locked."""
        session, target = self._session, self._target
        replayed = Replayed.of(batch, target)
        are_told, compared = session.compared(table, rows, columns, target)
        noted = deletions_of(session, target.table)
        own = [found for writer, found in noted if writer == self._mine]
        others = [found for writer, found in noted if writer != self._mine]
        kept = self._kept(replayed.places, is_alone=not others) if are_told else {}
        gone = may_be_gone(target, own, others)
        landing = replayed.landing(replayed.proven(kept), compared, target, may_be_gone=gone)
        self._left, self._landed = landing.left, replayed.landed(landing.left)
        part, merged = rows.filter(landing.mask(rows.num_rows)), Merged()
        if part.num_rows:
            merged = session.merge(table, part, columns, replace(target, newest_by=None))
        return replayed.merged(landing, merged)

    def mark(self, batch: JudgedBatch) -> None:
        """Mark what has landed, say of what was left why, and supersede what was refused before a row that has landed.

        Raises:
            StoreRefusedError: the marks are not kept (`destination.records`).
        """
        origins, target = batch.origins or (), self._target
        mark_repaired(self._session, target.table, self._lane, target.run_id, repaired(batch, self._left))
        self._tell([origins[ordinal] for ordinal in sorted(self._left)])
        self._supersede()
        self._left = frozenset()

    def _kept(self, places: Sequence[Position], *, is_alone: bool) -> dict[Position, Kept]:
        session, target = self._session, self._target
        condition, values = at_places(session, sorted(set(places)), 3)
        rows = session.execute(
            f'SELECT {_PLACES}, "merge_key", "lane" FROM {self._quarantine} '
            f'WHERE "org" = $1 AND "pipeline" = $2 AND {condition}',
            (*self._mine, *values),
        )
        lanes = {
            lane
            for name in session.names(target.table)
            for (lane,) in session.execute(
                f'SELECT DISTINCT "lane" FROM {quote_table(name.beside(CHECKPOINT))} '
                'WHERE "org" = $1 AND "pipeline" = $2 AND "lane" <> $3',
                (*self._mine, self._lane.name),
            )
        }
        return {_place(row): Kept(row[4], is_alone and lanes <= {row[5]}) for row in rows}

    def _tell(self, left: Sequence[Position]) -> None:
        if not left:
            return
        condition, values = at_places(self._session, left, 4)
        self._session.execute(
            f'UPDATE {self._quarantine} SET "reason" = "reason" || \'; \' || $3 WHERE "org" = $1 AND "pipeline" = $2 '
            f"AND \"reason\" NOT LIKE '%' || $3 AND {condition}",
            (*self._mine, LEFT, *values),
        )

    def _supersede(self) -> None:
        landed, self._landed = self._landed, {}
        if not landed:
            return
        for quarantine in quarantines(self._session, self._target.table):
            rows = self._session.execute(
                f'SELECT {_PLACES}, "merge_key" FROM {quarantine} WHERE "org" = $1 AND "pipeline" = $2 '
                f"AND {self._session.aimed} AND \"state\" = '{RefusedState.OPEN}' "
                f"AND {self._session.among(quote('merge_key'), '$4')}",
                (*self._mine, str(self._target.table), ",".join(sorted(landed))),
            )
            places = [_place(row) for row in rows if is_before(_place(row), landed[row[4]])]
            if places:
                condition, values = at_places(self._session, places, 4)
                self._session.execute(
                    f'UPDATE {quarantine} SET "state" = \'{RefusedState.SUPERSEDED}\', "settled_by" = $3 '
                    f'WHERE "org" = $1 AND "pipeline" = $2 AND {condition}',
                    (*self._mine, self._target.run_id, *values),
                )


def _place(row: Sequence[Any]) -> Position:
    return tuple(str(part) for part in row[:4])
