"""The end of a read by a cursor from what was observed, and the sentences that tell of it; shared by the stores."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from domain.loads.horizon import MARGIN, STANDBY, Horizon, Moment, ReadEnd, Transaction, clock_text
from infrastructure.clock import monotonic, utc_now
from infrastructure.stores.cursor_axis import Axis, micros

_NAMED = 3


WAIT_SECONDS = 3.0
"""How long a plan waits for transactions that began just before it."""
_LOOK_EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class CursorEnd:
    """Where a read ends: `hi`, exclusive, and why."""

    hi: str
    why: ReadEnd

    def cut(self, hi: str | None, before: ReadEnd | None) -> tuple[str | None, ReadEnd]:
        """The same for a limited read, which is no more complete than the one before it."""
        if hi == self.hi:
            return hi, self.why
        return hi, replace(self.why, complete_as_of=before.complete_as_of if before is not None else None)


@dataclass(frozen=True)
class Beginning:
    """What a plan begins with: the axis, the greatest value seen on it, the watermark, and the end of the
    read before. `ahead` tells of rows above the greatest value that are read later.
    """

    axis: Axis
    greatest: int | None
    lo: str | None
    before: ReadEnd | None
    waits: bool = True
    unknown: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()


LookAgain = Callable[[Horizon], Awaitable[list[Transaction]]]


@dataclass(frozen=True)
class Ended:
    """An end in the making: what holds it back below what was seen, and what was passed over by assumption."""

    axis: Axis
    horizon: Horizon
    hi: str
    complete_as_of: int | None
    holding: tuple[Transaction, ...]
    passed: tuple[Transaction, ...]
    ahead: tuple[str, ...] = ()

    @property
    def is_held_by_young(self) -> bool:
        """Whether every transaction that holds the read back has only just begun, so that it may end soon."""
        ages = [self.horizon.at - self.horizon.standing[found.id].since for found in self.holding]
        return bool(ages) and all(age < WAIT_SECONDS * 1_000_000 for age in ages)

    def close(self, before: ReadEnd | None, unknown: Sequence[str]) -> CursorEnd:
        """Put it into words, and keep what the next read goes on from."""
        complete = clock_text(self.complete_as_of) if self.complete_as_of is not None else None
        why = ReadEnd(
            complete_as_of=complete,
            held_back=(*self._held_back(), *self.ahead),
            assumed=self._assumed(),
            unknown=(*self._put_back(before), *unknown),
            horizon=self.horizon,
        )
        return CursorEnd(self.hi, why.since(before))

    def _held_back(self) -> tuple[str, ...]:
        told = [
            f"Held back since {self._since(found)} by {found.session}: what it writes may still come below what was "
            f"seen{_hidden(found)}."
            for found in self._oldest(self.holding)
        ]
        return (*told, *_others(self.holding, "transactions hold it back"))

    def _assumed(self) -> tuple[str, ...]:
        told = [
            f"Assumed that {found.session}, whose transaction is open since {self._since(found)}, writes nothing more "
            f"below what was seen: that is longer than cursor.patience ({_span(self.axis.cursor.patience)}), and it "
            "holds no lock for writing; patience: forever waits instead."
            for found in self._oldest(self.passed)
        ]
        return (*told, *_others(self.passed, "transactions were passed over"))

    def _put_back(self, before: ReadEnd | None) -> tuple[str, ...]:
        """A clock that was put back gives times below the watermark once more, which no end can help."""
        was = before.horizon if before is not None else None
        if was is None or not self.axis.is_clock or was.axis != self.axis.name or was.at <= self.horizon.at + MARGIN:
            return ()
        return (
            f"The source's clock was put back from {clock_text(was.at)[:19]}Z to {clock_text(self.horizon.at)[:19]}Z: "
            "rows that were written in between may lie below the watermark; read them again with lookback or "
            "'pipelines reset --to'.",
        )

    def _oldest(self, transactions: Sequence[Transaction]) -> list[Transaction]:
        return sorted(transactions, key=lambda found: self.horizon.standing[found.id].since)[:_NAMED]

    def _since(self, found: Transaction) -> str:
        return clock_text(self.horizon.standing[found.id].since)[:19] + "Z"


async def settled(
    begin: Beginning, horizon: Horizon, transactions: Sequence[Transaction], look_again: LookAgain
) -> CursorEnd:
    """Wait a little for what has only just begun, then say how far a read may go.

    Raises:
        InvalidInputError: as `ended`.
    """
    started = monotonic()
    while True:
        elapsed = monotonic() - started
        found = ended(begin, horizon, transactions, int(elapsed * 1_000_000))
        if not begin.waits or elapsed > WAIT_SECONDS or not found.is_held_by_young:
            return found.close(begin.before, begin.unknown)
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
        transactions = await look_again(horizon)
        horizon = horizon.narrowed(transactions)


async def own_end(begin: Beginning, writing_since: Callable[[], datetime | None]) -> CursorEnd:
    """The end of a read of a store that this process owns: its one writer has put its times after it began.

    Raises:
        InvalidInputError: as `ended`.
    """
    axis, now = begin.axis, micros(utc_now())

    def writer() -> list[Transaction]:
        since = writing_since()
        if since is None:
            return []
        at = micros(since)
        return [Transaction(f"writer {at}", "a writer of this process", at, writes=True)]

    async def look_again(_: Horizon) -> list[Transaction]:
        return writer()

    place = now if axis.is_clock else axis.above(begin.greatest) if begin.greatest is not None else None
    moment = Moment(axis.name, axis.is_clock, "process", 0, now, place, begin.greatest)
    found = writer()
    before = begin.before.horizon if begin.before is not None else None
    return await settled(begin, Horizon.observed(before, moment, found), found, look_again)


def ended(begin: Beginning, horizon: Horizon, transactions: Sequence[Transaction], elapsed: int = 0) -> Ended:
    """Work out the end: the lowest of now less what is held back, just above the greatest value, and what may still
    commit.

    Raises:
        InvalidInputError: `lo` is no value of the cursor, or nothing can come after the greatest one.
    """
    axis, greatest, lo = begin.axis, begin.greatest, begin.lo
    counted, passed = horizon.judged(transactions, horizon.at + elapsed, axis.cursor.patience)
    # A read is no more complete than the one before it while rows wait that were seen.
    as_of = horizon.complete_as_of(counted) if not begin.ahead else None
    if greatest is None:
        return Ended(axis, horizon, axis.end([None], lo), _less(as_of, axis), (), (), begin.ahead)
    # Whoever does not wait for the last second wants to know all the same what would hold a run back.
    wanted = _value(axis, greatest, horizon, horizon.at if axis.is_clock and not begin.waits else horizon.place)

    def lowers(found: Transaction) -> bool:
        reached = _value(axis, greatest, horizon, horizon.standing[found.id].floor)
        return reached is None or (wanted is not None and reached < wanted)

    # A session may be seen twice, by its transaction and by its statement.
    holding = {found.session: found for found in counted if lowers(found)}
    passed_over = {found.session: found for found in passed if found.session not in holding and lowers(found)}
    end = _value(axis, greatest, horizon, horizon.end(counted))
    complete = _less(as_of, axis)
    if complete is not None and end is not None and axis.is_clock and greatest >= end:
        complete = min(complete, axis.begins(end))  # What was seen from the end on is not read.
    return Ended(
        axis=axis,
        horizon=horizon,
        hi=axis.end([end], lo),
        complete_as_of=complete,
        holding=tuple(holding.values()),
        passed=tuple(passed_over.values()),
        ahead=(*_ahead(axis, greatest, end, horizon), *begin.ahead),
    )


def _ahead(axis: Axis, greatest: int, end: int | None, horizon: Horizon) -> tuple[str, ...]:
    """Say what was seen and is left for a later time; what was stamped within the last moments needs no words."""
    column = axis.cursor.column
    if axis.kind == "date" and end is not None and greatest >= end:
        where = (
            f"in {axis.cursor.timezone}"
            if axis.cursor.timezone
            else "everywhere (cursor.timezone says where it counts)"
        )
        return (f"Rows whose {column} is {axis.text(end)} or later are not read yet: that day has to be over {where}.",)
    if not axis.is_clock or axis.begins(greatest) <= horizon.at + MARGIN:
        if horizon.life == STANDBY and end is not None and greatest >= end and axis.is_clock:
            return (
                f"Rows whose {column} is {axis.text(end)} or later are not read yet: the standby has replayed nothing "
                "that was committed later, and such a row may still come.",
            )
        return ()
    return (
        f"Rows have a {column} up to {axis.text(greatest)}, ahead of the source's clock: they are read when it gets "
        "there.",
    )


def _value(axis: Axis, greatest: int, horizon: Horizon, place: int | None) -> int | None:
    """How far a read may go by a place, in values of the cursor."""
    if place is None:
        return None
    if axis.is_clock:
        held = min(place, horizon.at - axis.held)
        return min(axis.reached(held, greatest), axis.above(greatest))
    return min(place, axis.held_back_from(greatest, horizon.at - horizon.stood_since))


def _less(as_of: int | None, axis: Axis) -> int | None:
    """What is held back is not complete yet; what is counted in integers has no time."""
    if as_of is None or (axis.is_integer and axis.held):
        return None
    return as_of - axis.held


def _hidden(found: Transaction) -> str:
    if found.started_at is not None or found.is_prepared or not found.session.startswith("session"):
        return ""
    return "; when it began is not shown to this role, and would be with pg_read_all_stats"


def _others(transactions: Sequence[Transaction], what: str) -> tuple[str, ...]:
    more = len(transactions) - _NAMED
    return (f"{more} more {what}.",) if more > 0 else ()


def _span(patience: timedelta | None) -> str:
    return "forever" if patience is None else f"{patience.total_seconds():g} s"
