"""The quarantine table in SQL: listing refused rows, and what becomes of them with their run (D9)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

from domain.errors import InvalidInputError
from domain.loads.checkpoint import Position
from domain.loads.quarantine import PLACE, Refusals, RefusedRow, RefusedState
from domain.loads.read_set import OF_CHOSEN_PARAMETERS, ReadSet
from domain.ports.batches import LARGE_ROW
from domain.ports.data_store import Batch, Target
from domain.quality.measures import Counts
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.sql import quote, quote_table
from infrastructure.stores.replayed import MOST_READ_AGAIN, PAGE_BYTES, PAGE_ROWS, ReadAgain, fitting, may_be_read_again
from infrastructure.stores.sql.names import quarantines
from infrastructure.stores.sql.own_rows import not_kept
from infrastructure.stores.sql.session import QUARANTINE, RECORD_BYTES, Session

_KEPT = ("read_set", "stream", "seq", "ordinal", "run_id", "kind", "rule", "reason", "record", "columns", "state")
_Place = tuple[str, str, int, int]
_OUTPUTS = ", ".join(map(quote, (*_KEPT, "settled_by"))) + ', CAST("refused_at" AS TEXT)'
_OF_LANE = '"org" = $1 AND "pipeline" = $2 AND "lane" = $3'


def refused_rows(
    session: Session, refusals: Refusals, after: Position | None, limit: int, most_bytes: int | None = None
) -> list[RefusedRow]:
    """List refused rows strictly after a place, one at least; blocking."""
    table = refusals.table.beside(QUARANTINE)
    held = session.describe(table)
    if held is None:
        return []
    chosen, values = _following(session, refusals, after)
    has_bytes = held.has(RECORD_BYTES.name)

    def fitted() -> list[_Place]:
        sizes = _sizes(session, f"{chosen}{limit:d}", values, has_bytes=has_bytes)
        return [place for place, _ in sizes[: fitting([size for _, size in sizes], most_bytes)]]

    if has_bytes and _has_large(session, table):
        while places := fitted():
            if found := [row for span in _spans(places) for row in _between(session, refusals, *span)]:
                return found  # Else somebody has dealt with all of them meanwhile.
        return []
    if most_bytes is not None:
        limit = len(fitted()) if has_bytes else _how_many(session, f"{chosen}{limit:d}", values, most_bytes)
    return [_row(row) for row in session.execute(f"SELECT {_OUTPUTS} {chosen}{limit:d}", values)]


def _how_many(session: Session, chosen: str, values: Sequence[Any], most_bytes: int) -> int:
    """How many of the chosen rows there is room for: one at least."""
    order = ", ".join(map(quote, PLACE))
    # By bits, as both databases tell them: a character may be four bytes, there and here.
    sizes = f'SELECT {order}, bit_length("record") / 8 AS size {chosen}'
    totals = f"SELECT sum(size) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS total FROM ({sizes}) AS sizes"
    found = session.execute(
        f"SELECT count(*) FROM ({totals}) AS totals WHERE total <= ${len(values) + 1}", (*values, most_bytes)
    )
    return max(1, int(found[0][0]))


def _has_large(session: Session, table: TableName) -> bool:
    """Whether there are records of which a store must not read one in passing."""
    found = session.execute(f"SELECT max({quote(RECORD_BYTES.name)}) FROM {quote_table(table)}")
    return (found[0][0] or 0) > LARGE_ROW


def _sizes(session: Session, chosen: str, values: Sequence[Any], *, has_bytes: bool) -> list[tuple[_Place, int]]:
    """The places of refused rows and the bytes of their records, before any of these is in memory."""
    places = ", ".join(map(quote, PLACE))
    if has_bytes:
        rows = session.execute(f"SELECT {places}, {quote(RECORD_BYTES.name)} {chosen}", values)
        if None not in (row[4] for row in rows):
            return [((row[0], row[1], row[2], row[3]), row[4]) for row in rows]
    # By bits, as both databases tell them: a character may be four bytes, there and here.
    rows = session.execute(f'SELECT {places}, bit_length("record") {chosen}', values)
    return [((row[0], row[1], row[2], row[3]), int(row[4]) // 8) for row in rows]


def _spans(places: Sequence[_Place]) -> list[tuple[str, str, int, int, int]]:
    """Places one after the other by what a store finds without looking at others: batches, with their first and last
    row.
    """
    batches = groupby(places, key=lambda place: place[:3])
    return [(*batch, rows[0], rows[-1]) for batch, rows in ((key, [row[3] for row in group]) for key, group in batches)]


def _between(
    session: Session, refusals: Refusals, read_set: str, stream: str, seq: int, first: int, last: int
) -> list[RefusedRow]:
    """Read some refused rows of one batch."""
    where, values = _belonging(session, refusals)
    count = len(values)
    where += f' AND "read_set" = ${count + 1} AND "stream" = ${count + 2} AND "seq" = ${count + 3}'
    where += f' AND "ordinal" BETWEEN ${count + 4} AND ${count + 5} ORDER BY "ordinal"'
    table = quote_table(refusals.table.beside(QUARANTINE))
    rows = session.execute(
        f"SELECT {_OUTPUTS} FROM {table} WHERE {where}", (*values, read_set, stream, seq, first, last)
    )
    return [_row(row) for row in rows]


def refused_places(session: Session, refusals: Refusals, after: Position | None, limit: int) -> list[Position]:
    """List the places of refused rows strictly after one; blocking."""
    if session.describe(refusals.table.beside(QUARANTINE)) is None:
        return []
    chosen, values = _following(session, refusals, after)
    rows = session.execute(f"SELECT {', '.join(map(quote, PLACE))} {chosen}{limit:d}", values)
    return [tuple(str(part) for part in row) for row in rows]


def _following(session: Session, refusals: Refusals, after: Position | None) -> tuple[str, tuple[Any, ...]]:
    """Refused rows in their order, strictly after a place: all of a SELECT but its outputs and its limit, and its
    parameters.
    """
    where, values = _belonging(session, refusals)
    if after is not None:
        bound = ", ".join(f"CAST(${len(values) + n} AS {kind})" for n, kind in enumerate(_PLACE_TYPES, start=1))
        where += f' AND ("read_set", "stream", "seq", "ordinal") > ({bound})'
        values += after
    table = quote_table(refusals.table.beside(QUARANTINE))
    return f'FROM {table} WHERE {where} ORDER BY "read_set", "stream", "seq", "ordinal" LIMIT ', values


def open_refusals(session: Session, refusals: Refusals, most: int = MOST_READ_AGAIN) -> Iterator[RefusedRow]:
    """The first refused rows, of which few are in memory at a time; blocking."""
    after: Position | None = None
    while most > 0 and (page := refused_rows(session, refusals, after, min(most, PAGE_ROWS), PAGE_BYTES)):
        yield from page
        after, most = page[-1].place, most - len(page)


def latest_read_set(session: Session, refusals: Refusals) -> str | None:
    """The greatest id of a read set that refused rows of the pipeline; blocking."""
    if session.describe(refusals.table.beside(QUARANTINE)) is None:
        return None
    found = [
        session.execute(
            f'SELECT max("read_set") FROM {quarantine} WHERE "org" = $1 AND "pipeline" = $2',
            (refusals.organization, refusals.pipeline),
        )[0][0]
        for quarantine in quarantines(session, refusals.table)
    ]
    return max(filter(None, found), default=None)


def refused_shapes(session: Session, refusals: Refusals) -> list[str]:
    """List the different columns that refused rows have; blocking.

    Raises:
        InvalidInputError: of some rows nobody says it (`quarantine.types`).
    """
    table = refusals.table.beside(QUARANTINE)
    if session.describe(table) is None:
        return []
    where, values = _belonging(session, refusals)
    # Of a batch the first row says it, which may be in another state by now.
    rows = session.execute(
        f'WITH chosen AS (SELECT DISTINCT "read_set", "stream", "seq" FROM {quote_table(table)} WHERE {where}) '
        f'SELECT DISTINCT said."columns" FROM chosen LEFT JOIN {quote_table(table)} AS said '
        'ON said."org" = $1 AND said."pipeline" = $2 AND said."read_set" = chosen."read_set" '
        'AND said."stream" = chosen."stream" AND said."seq" = chosen."seq" AND said."columns" IS NOT NULL ORDER BY 1',
        values,
    )
    if None in (row[0] for row in rows):
        raise InvalidInputError(
            f"Rows that say which columns others of their batch have are gone from {table}: the refused rows cannot be "
            "replayed without them. Put them back, or load the source again.",
            code="quarantine.types",
        )
    return [str(row[0]) for row in rows]


def open_places(session: Session, table: TableName, lane: Lane, places: Sequence[Position]) -> set[Position]:
    """Which of these are still open; they stay so until the transaction ends."""
    if not places:
        return set()
    condition, values = at_places(session, places, 3)
    rows = session.execute(
        f"SELECT {', '.join(map(quote, PLACE))} FROM {quote_table(table.beside(QUARANTINE))} "
        f'WHERE "org" = $1 AND "pipeline" = $2 AND "state" = \'{RefusedState.OPEN}\' AND {condition} '
        f"{session.for_update}",
        (lane.organization, lane.pipeline, *values),
    )
    return {tuple(str(part) for part in row) for row in rows}


def mark_repaired(session: Session, table: TableName, lane: Lane, run_id: str, places: Sequence[Position]) -> None:
    """Mark what a replayed batch has put into the table, inside the transaction that has found it open.

    Raises:
        StoreRefusedError: the marks are not kept (`destination.records`).
    """
    if not places:
        return
    quarantine = table.beside(QUARANTINE)
    condition, values = at_places(session, places, 4)
    marked = session.execute(
        f"UPDATE {quote_table(quarantine)} SET \"state\" = '{RefusedState.REPAIRED}', "
        f'"settled_by" = $1 WHERE "org" = $2 AND "pipeline" = $3 AND "state" = \'{RefusedState.OPEN}\' AND {condition} '
        'RETURNING "ordinal"',
        (run_id, lane.organization, lane.pipeline, *values),
    )
    if len(marked) != len(places):
        raise not_kept(quarantine)


class Rereads:
    """Notes which open refusals of earlier runs the batches of a stream have read again; asked once, at the first
    batch.
    """

    def __init__(self, session: Session, lane: Lane, target: Target, read_set_id: str) -> None:
        self._session = session
        self._refusals = may_be_read_again(lane, target)
        self._key = target.source_key
        self._read_set_id = read_set_id
        self._again: dict[str, ReadAgain] | None = None

    def note(self, rows: Batch | None) -> None:
        """Note them in the transaction of the batch: they are superseded when the run is published."""
        if not self._key or rows is None or not rows.num_rows:
            return
        if self._again is None:
            self._again = {
                quote_table(name.beside(QUARANTINE)): ReadAgain(
                    self._key, open_refusals(self._session, replace(self._refusals, table=name))
                )
                for name in self._session.names(self._refusals.table)
            }
        for quarantine, again in self._again.items():
            if places := again.places(rows):
                condition, values = at_places(self._session, places, 4)
                self._session.execute(
                    f'UPDATE {quarantine} SET "settled_by" = $1 WHERE "org" = $2 '
                    f'AND "pipeline" = $3 AND "state" = \'{RefusedState.OPEN}\' AND {condition}',
                    (self._read_set_id, self._refusals.organization, self._refusals.pipeline, *values),
                )


def settle_refused(session: Session, target: Target, lane: Lane, read_set: ReadSet, counts: Counts) -> None:
    """The run is published: what it has read again or overtaken is superseded, and what else it refused may be replayed
    from now on.
    """
    knows_missing = target.delete_missing is not None and not counts.quarantined + counts.failed
    if target.replaces or knows_missing:
        _supersede(session, target, lane, "true", ())
    elif target.merges and read_set.is_whole and lane.is_main:
        _supersede(session, target, lane, '"read_set" NOT LIKE $5', (f"%{OF_CHOSEN_PARAMETERS}",))
    if counts.quarantined + counts.failed:
        _open(session, target.table, lane, read_set.id)
    if target.source_key or (target.merges and target.shadow is not None):
        _supersede(session, target, lane, '"settled_by" = $5', (read_set.id,))


def _open(session: Session, table: TableName, lane: Lane, read_set_id: str) -> None:
    more, values = 'AND "read_set" = $4', (read_set_id,)
    _move(session, table, lane, RefusedState.WAITING, RefusedState.OPEN, more, values)
    _check_count(session, table, (lane.organization, lane.pipeline, lane.name), 0, more, values)


def check_put_aside(session: Session, table: TableName, place: Sequence[str], seq: int, count: int) -> None:
    """Refuse to go on where the refused rows of a batch are not there after they were written: nobody would have them.
    `place` is the organization, pipeline, lane, read set and stream.

    Raises:
        StoreRefusedError: they are not (`destination.records`).
    """
    more = 'AND "read_set" = $4 AND "stream" = $5 AND "seq" = $6'
    _check_count(session, table, place[:3], count, more, (*place[3:], seq))


def _check_count(
    session: Session, table: TableName, lane: Sequence[str], count: int, more: str, values: Sequence[Any]
) -> None:
    """Count waiting rows where the database may have made something else of them."""
    quarantine = table.beside(QUARANTINE)
    if session.may_alter(quarantine):
        where = f"{_OF_LANE} {more} AND \"state\" = '{RefusedState.WAITING}'"
        rows = session.execute(f"SELECT count(*) FROM {quote_table(quarantine)} WHERE {where}", (*lane, *values))
        if rows[0][0] != count:
            raise not_kept(quarantine)


def abandon_refused(session: Session, table: TableName, lane: Lane) -> None:
    """What the lane left unfinished is forgotten: its refused rows will be read again."""
    _move(session, table, lane, RefusedState.WAITING, RefusedState.ABANDONED, "", ())


def _supersede(session: Session, target: Target, lane: Lane, condition: str, values: tuple[Any, ...]) -> None:
    """Supersede what earlier runs refused and a condition is true of; `values` are its parameters, from `$5` on."""
    for quarantine in quarantines(session, target.table):
        session.execute(
            f'UPDATE {quarantine} SET "state" = \'{RefusedState.SUPERSEDED}\', "settled_by" = $4 '
            f'WHERE "org" = $1 AND "pipeline" = $2 AND {session.aimed} '
            f"AND \"state\" = '{RefusedState.OPEN}' AND ({condition})",
            (lane.organization, lane.pipeline, str(target.table), target.run_id, *values),
        )


_PLACE_TYPES = ("TEXT", "TEXT", "BIGINT", "BIGINT")


_PLACE = '"read_set" || \'/\' || "stream" || \'/\' || CAST("seq" AS TEXT) || \'/\' || CAST("ordinal" AS TEXT)'


def at_places(session: Session, places: Sequence[Position], number: int) -> tuple[str, tuple[Any, ...]]:
    """Say that a row is at one of these places, as a condition and the values of its parameters from `$number` on.

    Each place would be a part of the statement if it were written out: a hundred thousand take gigabytes to plan, or
    are too many for the database. Of places in a subquery Postgres does not know how many there are, and may compare
    each row with each. Between which batches they are is what an index, or a block of DuckDB's, is found by.
    """
    batches = sorted(int(place[2]) for place in places)
    found = [session.among(text, f"${number + n}") for text, n in (('"read_set"', 0), ('"stream"', 1), (_PLACE, 4))]
    condition = " AND ".join([*found, f'"seq" BETWEEN ${number + 2} AND ${number + 3}'])
    read_sets, streams = (",".join(sorted({place[part] for place in places})) for part in (0, 1))
    return condition, (read_sets, streams, batches[0], batches[-1], ",".join("/".join(place) for place in places))


def _belonging(session: Session, refusals: Refusals) -> tuple[str, tuple[Any, ...]]:
    where = f'"org" = $1 AND "pipeline" = $2 AND {session.aimed}'
    values: tuple[Any, ...] = (refusals.organization, refusals.pipeline, str(refusals.table))
    for name, value in (("run_id", refusals.run_id), ("state", refusals.state), ("lane", refusals.lane)):
        if value is not None:
            values += (str(value),)
            where += f' AND "{name}" = ${len(values)}'
    return where, values


def _move(
    session: Session,
    table: TableName,
    lane: Lane,
    before: RefusedState,
    after: RefusedState,
    more: str,
    values: tuple[Any, ...],
) -> None:
    session.execute(
        f"UPDATE {quote_table(table.beside(QUARANTINE))} SET \"state\" = '{after}' "
        f"WHERE {_OF_LANE} {more} AND \"state\" = '{before}'",
        (lane.organization, lane.pipeline, lane.name, *values),
    )


def _row(row: Sequence[Any]) -> RefusedRow:
    read_set, stream, seq, ordinal, run_id, kind, rule, reason, record, columns, state, settled_by, moment = row
    return RefusedRow(
        (read_set, stream, str(seq), str(ordinal)),
        *(run_id, kind, rule, reason, record, columns),
        RefusedState(state),
        # Until a run is published it says by which read set the row will be settled.
        settled_by if state not in (RefusedState.OPEN, RefusedState.WAITING) else None,
        datetime.fromisoformat(moment),
    )
