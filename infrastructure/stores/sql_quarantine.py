"""The quarantine table in SQL: listing refused rows, and what becomes of them with their run (D9)."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from domain.errors import FencedError
from domain.pipelines.checkpoint import Position
from domain.pipelines.quarantine import Refusals, RefusedRow, RefusedState
from domain.pipelines.read_set import Lane
from domain.pipelines.table import TableName
from infrastructure.sql import quote_table
from infrastructure.stores.sql_session import QUARANTINE, Session

_KEPT = ("read_set", "stream", "seq", "ordinal", "run_id", "kind", "rule", "reason", "record", "columns", "state")
_OF_LANE = '"org" = $1 AND "pipeline" = $2 AND "lane" = $3'


def refused_rows(session: Session, refusals: Refusals, after: Position | None, limit: int) -> list[RefusedRow]:
    """List refused rows strictly after a place; blocking."""
    table = refusals.table.beside(QUARANTINE)
    if session.describe(table) is None:
        return []
    where, values = _belonging(refusals)
    if after is not None:
        bound = ", ".join(f"CAST(${len(values) + n} AS {kind})" for n, kind in enumerate(_PLACE_TYPES, start=1))
        where += f' AND ("read_set", "stream", "seq", "ordinal") > ({bound})'
        values += after
    names = ", ".join(f'"{name}"' for name in (*_KEPT, "settled_by"))
    rows = session.execute(
        f'SELECT {names}, CAST("refused_at" AS TEXT) FROM {quote_table(table)} WHERE {where} ORDER BY "read_set", "stream", "seq", "ordinal" '
        f"LIMIT {limit:d}",
        values,
    )
    return [_row(row) for row in rows]


def refused_shapes(session: Session, refusals: Refusals) -> list[str]:
    """List the different columns that refused rows have; blocking."""
    table = refusals.table.beside(QUARANTINE)
    if session.describe(table) is None:
        return []
    where, values = _belonging(refusals)
    rows = session.execute(f'SELECT DISTINCT "columns" FROM {quote_table(table)} WHERE {where} ORDER BY 1', values)
    return [str(row[0]) for row in rows]


def mark_repaired(session: Session, table: TableName, lane: Lane, run_id: str, places: Sequence[Position]) -> None:
    """Mark what a replayed batch has put into the table, inside its transaction.

    Raises:
        FencedError: another run has repaired or superseded one of them; nothing is written.
    """
    groups: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for read_set, stream, seq, ordinal in places:
        groups[read_set, stream, int(seq)].append(int(ordinal))
    for (read_set, stream, batch), ordinals in groups.items():
        marked = session.execute(
            f"UPDATE {quote_table(table.beside(QUARANTINE))} SET \"state\" = '{RefusedState.REPAIRED}', "
            '"settled_by" = $1 WHERE "org" = $2 AND "pipeline" = $3 AND "read_set" = $4 AND "stream" = $5 '
            f'AND "seq" = $6 AND "state" = \'{RefusedState.OPEN}\' '
            f'AND "ordinal" IN ({", ".join(str(ordinal) for ordinal in ordinals)}) RETURNING "ordinal"',
            (run_id, lane.organization, lane.pipeline, read_set, stream, batch),
        )
        if len(marked) != len(ordinals):
            raise FencedError("Another run has dealt with some of the refused rows; nothing was written.")


def open_refused(session: Session, table: TableName, lane: Lane, read_set_id: str) -> None:
    """The run is published: what it refused may be replayed from now on."""
    _move(session, table, lane, RefusedState.WAITING, RefusedState.OPEN, 'AND "read_set" = $4', (read_set_id,))


def abandon_refused(session: Session, table: TableName, lane: Lane) -> None:
    """What the lane left unfinished is forgotten: its refused rows will be read again."""
    _move(session, table, lane, RefusedState.WAITING, RefusedState.ABANDONED, "", ())


def supersede_refused(session: Session, table: TableName, lane: Lane, run_id: str) -> None:
    """A run has read everything again, what earlier runs refused with it."""
    session.execute(
        f"UPDATE {quote_table(table.beside(QUARANTINE))} SET \"state\" = '{RefusedState.SUPERSEDED}', "
        f'"settled_by" = $4 WHERE "org" = $1 AND "pipeline" = $2 AND "target" = $3 '
        f"AND \"state\" = '{RefusedState.OPEN}'",
        (lane.organization, lane.pipeline, str(table), run_id),
    )


_PLACE_TYPES = ("TEXT", "TEXT", "BIGINT", "BIGINT")


def _belonging(refusals: Refusals) -> tuple[str, tuple[Any, ...]]:
    where = '"org" = $1 AND "pipeline" = $2 AND "target" = $3'
    values: tuple[Any, ...] = (refusals.organization, refusals.pipeline, str(refusals.table))
    for name, value in (("run_id", refusals.run_id), ("state", refusals.state)):
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
        settled_by,
        datetime.fromisoformat(moment),
    )
