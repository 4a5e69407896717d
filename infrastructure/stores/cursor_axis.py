"""The axis that the values of a cursor lie on, as whole numbers, and where a read ends on it; shared by the stores."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from domain.errors import InvalidInputError
from domain.loads.horizon import microseconds
from domain.pipelines.spec import CursorSpec
from infrastructure.stores.cursors import integer_bounds, integer_of, is_integer_cursor, moment_of, written

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
# Somewhere it is still this long before the same time of day in UTC, and nowhere longer.
_LAST_ZONE = 12 * 3600 * _SECOND
# And somewhere it is already this long after it.
_FIRST_ZONE = 14 * 3600 * _SECOND
# Beyond every time that a store has.
ENDLESS = 2**80
# No clock is put back by more than a day, and none between the steps in which a zone is looked at.
_PUT_BACK = timedelta(hours=26)
_STEP = timedelta(minutes=15)
_UNITS = tuple(10**digits for digits in range(6, 0, -1))
# The offsets of all zones are whole multiples of this.
_OFFSETS = 15 * 60 * _SECOND


@dataclass(frozen=True)
class Axis:
    """Values of a cursor as whole numbers: its integers, or microseconds since 1970, in UTC or as the wall shows them.

    `unit` is the distance of two neighboring values that the type allows. `is_clock` says that the source's clock can
    be compared with them: they have a zone, or one is declared, or they are dates, which are compared with the earliest
    date that it can be.
    """

    cursor: CursorSpec
    kind: str
    unit: int

    @classmethod
    def of(cls, cursor: CursorSpec, kind: str) -> "Axis":
        """Describe a cursor.

        Raises:
            InvalidInputError: the type cannot be a cursor, or `hold_back` or `timezone` does not go with it.
        """
        is_integer = is_integer_cursor(cursor, kind)
        if cursor.timezone is not None and kind not in ("timestamp", "date"):
            raise InvalidInputError(
                f"The cursor {cursor.column} is {kind}; timezone is for a timestamp without one, or a date.",
                code="cursor.timezone",
            )
        return cls(cursor, kind, _DAY if kind == "date" and not is_integer else 1)

    @property
    def is_integer(self) -> bool:
        """Whether it counts in integers."""
        return self.kind not in ("timestamp", "timestamptz", "date")

    @property
    def is_clock(self) -> bool:
        """Whether the source's clock can be compared with its values."""
        return self.kind in ("timestamptz", "date") or (self.kind == "timestamp" and self.cursor.timezone is not None)

    @property
    def name(self) -> str:
        """What observations must share to be compared."""
        return f"{self.cursor.column} {self.kind} {self.cursor.timezone or ''}".strip()

    @property
    def held(self) -> int:
        """What is held back, in its own units."""
        held = self.cursor.hold_back
        return microseconds(held) if isinstance(held, timedelta) else held or 0

    def above(self, greatest: int) -> int:
        """The next value.

        Raises:
            InvalidInputError: there is none (`cursor.at_maximum`).
        """
        if self.is_integer and greatest >= integer_bounds(self.kind)[1]:
            raise InvalidInputError(
                f"The cursor {self.cursor.column} holds {greatest}, the largest {self.kind}: nothing can come after "
                "it, so no later row would ever be read. Leave such rows out with a query.",
                code="cursor.at_maximum",
            )
        return greatest + self.unit

    def reachable(self, least: int | None, greatest: int | None) -> int | None:
        """Give the greatest value back if reads get to all times from the least to it.

        Raises:
            InvalidInputError: no watermark can be written above the greatest (`cursor.at_maximum`), or one of them is
                below every watermark (`cursor.at_minimum`).
        """
        name = self.cursor.column
        if not self.is_integer and greatest is not None and greatest + self.unit > _LATEST:
            raise InvalidInputError(
                f"The cursor {name} holds infinity or a time from {self.text(_LATEST)} on: no read ever gets there, "
                f"so such rows would never be read. Leave them out with a query (WHERE {name} < '9999-12-31'), or "
                f"give them a time that comes, such as coalesce(nullif({name}, 'infinity'), …).",
                code="cursor.at_maximum",
            )
        if not self.is_integer and least is not None and least <= -ENDLESS:
            raise InvalidInputError(
                f"The cursor {name} holds -infinity, which is below every watermark: a row that came with it after "
                f"the first read would never be read. Leave such rows out with a query (WHERE {name} > '-infinity'), "
                f"or give them a time of their own, such as coalesce(nullif({name}, '-infinity'), …).",
                code="cursor.at_minimum",
            )
        return greatest

    def reached(self, moment: int, greatest: int) -> int:
        """The value below which nothing comes that is stamped at a moment of the clock or later.

        A clock may be coarser than the type, so no end lies inside the unit that the greatest value shows.
        """
        if self.kind == "timestamptz":
            wall = moment
        elif self.cursor.timezone is not None:
            wall = _earliest_wall(moment, ZoneInfo(self.cursor.timezone))
        else:
            wall = moment - _LAST_ZONE
        return wall - wall % self._unit(greatest)

    def begins(self, value: int) -> int:
        """The earliest moment at which what is stamped may have a value, or one above it."""
        if self.kind == "timestamptz":
            return value
        if self.cursor.timezone is None:
            return value - _FIRST_ZONE
        wall = _EPOCH + timedelta(microseconds=min(max(value, _EARLIEST + _DAY), _LATEST - _DAY))
        zone = ZoneInfo(self.cursor.timezone)
        return min(_since_epoch(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)) for fold in (0, 1))

    def fresh_for(self, greatest: int | None, now: int, margin: int) -> int:
        """Microseconds until the greatest value is older than the margin, as far as a clock can tell; 0 if it is."""
        if greatest is None or self.is_integer or self.kind == "date":
            return 0
        unit = self._unit(greatest)
        # It may have been rounded up. Whatever the zone is, a wall's clock differs from ours by whole quarters of an
        # hour.
        age = now - greatest if self.kind == "timestamptz" else (now - greatest + unit) % _OFFSETS - unit
        return margin + unit - age if -unit <= age < margin + unit else 0

    def _unit(self, greatest: int) -> int:
        """The unit of the clock that has put a value: a second, or the decimal part of one that it is a whole number
        of.
        """
        return next((unit for unit in _UNITS if unit >= self.unit and greatest % unit == 0), self.unit)

    def held_back_from(self, greatest: int, quiet: int) -> int:
        """The end of a read that compares values with themselves; `quiet` is how long the greatest has been the
        greatest.
        """
        above = self.above(greatest)
        return above if not self.is_integer and quiet >= self.held else above - self.held

    def read(self, text: str | None) -> int | None:
        """Read a value that the store has written as a number, or infinity."""
        if text is None:
            return None
        value = Decimal(text)
        return int(value) if value.is_finite() else ENDLESS if value > 0 else -ENDLESS

    def text(self, value: int) -> str:
        """A value as text that the store reads."""
        if self.is_integer:
            return str(value)
        bounded = min(max(value, _EARLIEST), _LATEST)
        return written(_EPOCH + timedelta(microseconds=bounded), self.kind)

    def end(self, ends: Iterable[int | None], lo: str | None) -> str:
        """The lowest of some ends, but none below `lo` or the least value; None stands for no known end.

        Raises:
            InvalidInputError: `lo` is no value of it (`cursor.watermark`).
        """
        found = list(ends)
        least = integer_bounds(self.kind)[0] if self.is_integer else _EARLIEST
        end = min((least if value is None else value for value in found), default=least)
        if lo is None:
            return self.text(max(end, least))
        begin = (
            integer_of(lo, self.cursor, self.kind)
            if self.is_integer
            else _since_epoch(moment_of(lo, self.cursor, self.kind))
        )
        return self.text(end) if end > begin else str(begin) if self.is_integer else lo


def micros(value: datetime | date) -> int:
    """A time or a date in microseconds since 1970; without a zone, as the wall shows it."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return _since_epoch(value if value.tzinfo is not None else value.replace(tzinfo=UTC))


def _since_epoch(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _earliest_wall(moment: int, zone: ZoneInfo) -> int:
    """The earliest time that a wall's clock will show from a moment on: it may be put back soon."""
    first = _EPOCH + timedelta(microseconds=min(max(moment, _EARLIEST + _DAY), _LATEST - 3 * _DAY))
    earliest = _wall(first, zone)
    step = first
    while step < first + _PUT_BACK:
        after = step + _STEP
        if _offset(after, zone) < _offset(step, zone):
            low, high = step, after  # The clock is put back between them: find the moment.
            while high - low > timedelta(microseconds=1):
                middle = low + (high - low) / 2
                low, high = (low, middle) if _offset(middle, zone) < _offset(step, zone) else (middle, high)
            earliest = min(earliest, _wall(high, zone))
        step = after
    return earliest


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _wall(moment: datetime, zone: ZoneInfo) -> int:
    return micros(moment.astimezone(zone).replace(tzinfo=None))
