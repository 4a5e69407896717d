"""Where a read by a cursor may end, without any database: a simulated source whose transactions overlap at random."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidInputError
from domain.loads.horizon import MARGIN, Horizon, Moment, ReadEnd, Transaction
from domain.pipelines.spec import CursorSpec
from infrastructure.stores.cursor_axis import Axis, micros

SECOND = 1_000_000
ZONES = (
    "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Pacific/Apia", "Asia/Kathmandu",
    "America/Havana", "UTC",
)  # fmt: skip


@dataclass
class Open:
    """A transaction of the simulation: its start, what it has written, and by which name a source would show it."""

    name: str
    start: int
    values: list[int] = field(default_factory=list)
    is_prepared: bool = False


@dataclass
class Simulated:
    """A source: a clock, a sequence, open transactions, and the values that can be seen."""

    is_clock: bool
    is_visible: bool
    now: int = 1000 * SECOND
    number: int = 0
    life: int = 0
    begun: int = 0
    began_at: int = 1000 * SECOND
    open: list[Open] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    horizon: Horizon | None = None
    end: int = 0
    read: list[int] = field(default_factory=list)

    def begins(self) -> None:
        self.begun += 1
        self.open.append(Open(f"{self.life}/{self.begun}", self.now))

    def writes(self, which: int) -> None:
        found = self._of(which)
        if found is not None and not found.is_prepared:
            self.number += 1
            stamp = found.start if which % 2 else self.now
            found.values.append(stamp if self.is_clock else self.number)

    def commits(self, which: int) -> None:
        found = self._of(which)
        if found is not None:
            self.open.remove(found)
            self.seen += found.values

    def prepares(self, which: int) -> None:
        found = self._of(which)
        if found is not None and not found.is_prepared:
            found.name, found.is_prepared = f"prepared {found.name}", True

    def restarts(self) -> None:
        self.open = [found for found in self.open if found.is_prepared]
        self.life += 1
        self.now += SECOND
        self.began_at = self.now

    def transactions(self) -> list[Transaction]:
        return [
            Transaction(
                o.name,
                o.name,
                o.start if self.is_visible and not o.is_prepared else None,
                is_prepared=o.is_prepared,
                writes=True,
            )
            for o in self.open
        ]

    def observes(self, looks: int, between: "list[tuple[str, int]]") -> None:
        greatest = max(self.seen, default=None)
        place = self.now - MARGIN if self.is_clock else greatest + 1 if greatest is not None else None
        moment = Moment("a", self.is_clock, str(self.life), self.began_at, self.now, place, greatest)
        horizon = Horizon.observed(self.horizon, moment, self.transactions())
        for action, which in between[:looks]:  # The world goes on while the plan waits.
            self.does(action, which)
            horizon = horizon.narrowed(self.transactions())
        found = self.transactions()
        counted, assumed = horizon.judged(found, self.now, None)
        assert assumed == []
        end = horizon.end(counted)
        if greatest is not None and end is not None:
            self.end = max(self.end, min(end, greatest + 1))
        self.horizon = Horizon.from_json(horizon.to_json())
        self.read = [value for value in self.seen if value < self.end]

    def does(self, action: str, which: int) -> None:
        self.now += which % 7 * SECOND // 5
        match action:
            case "begin":
                self.begins()
            case "write":
                self.writes(which)
            case "commit":
                self.commits(which)
            case "prepare":
                self.prepares(which)
            case "restart":
                self.restarts()

    def _of(self, which: int) -> Open | None:
        return self.open[which % len(self.open)] if self.open else None


ACTIONS = st.tuples(
    st.sampled_from(["begin", "begin", "write", "write", "commit", "prepare", "restart"]), st.integers(0, 60)
)
STEPS = st.lists(st.one_of(ACTIONS, st.tuples(st.just("observe"), st.integers(0, 3))), max_size=60)


@pytest.mark.parametrize("is_visible", [True, False], ids=["starts shown", "starts hidden"])
@pytest.mark.parametrize("is_clock", [True, False], ids=["clock", "numbers"])
@settings(max_examples=120, deadline=None)
@given(steps=STEPS, between=st.lists(ACTIONS, max_size=3))
def test_nothing_that_commits_later_lies_below_an_end(
    is_clock: bool, is_visible: bool, steps: list[tuple[str, int]], between: list[tuple[str, int]]
) -> None:
    source = Simulated(is_clock, is_visible)

    for action, which in steps:
        if action == "observe":
            source.observes(which, between)
        else:
            source.does(action, which)
        below = [value for value in source.seen if value < source.end]
        assert sorted(below) == sorted(source.read)


@pytest.mark.parametrize("is_clock", [True, False], ids=["clock", "numbers"])
@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_once_nothing_is_open_everything_is_read(is_clock: bool, steps: list[tuple[str, int]]) -> None:
    source = Simulated(is_clock, is_visible=False)
    for action, which in steps:
        if action == "observe":
            source.observes(0, [])
        else:
            source.does(action, which)

    while source.open:
        source.commits(0)
    source.now += 3 * SECOND
    source.observes(0, [])

    assert sorted(source.read) == sorted(source.seen)


def test_a_long_transaction_without_a_lock_is_passed_over_after_the_patience() -> None:
    reads, writes = Transaction("1", "reads"), Transaction("2", "writes", writes=True)
    prepared = Transaction("3", "prepared", is_prepared=True)
    moment = Moment("a", True, "1", 0, 100 * SECOND, 99 * SECOND)
    first = Horizon.observed(None, moment, [reads, writes, prepared])
    later = Moment("a", True, "1", 0, 160 * SECOND, 159 * SECOND)
    second = Horizon.observed(first, later, [reads, writes, prepared])

    assert first.judged([reads], later.at - 61 * SECOND, timedelta(minutes=1)) == ([reads], [])
    assert second.judged([reads, writes, prepared], later.at, timedelta(minutes=1)) == ([writes, prepared], [reads])
    assert second.judged([reads], later.at, None) == ([reads], [])


def test_what_is_newly_prepared_may_be_what_was_open_before() -> None:
    moments = [
        Moment("a", True, "1", 10 * SECOND, at, at - MARGIN) for at in (100 * SECOND, 200 * SECOND, 300 * SECOND)
    ]
    session, prepared = Transaction("1/7", "hidden"), Transaction("prepared 9", "prepared", is_prepared=True)
    first = Horizon.observed(None, moments[0], [])
    second = Horizon.observed(first, moments[1], [session])

    assert second.end([session]) == 99 * SECOND
    assert second.narrowed([prepared]).end([prepared]) == 99 * SECOND
    assert Horizon.observed(second, moments[2], [prepared]).end([prepared]) == 99 * SECOND
    assert Horizon.observed(first, moments[2], [prepared]).end([prepared]) == 99 * SECOND
    assert Horizon.observed(None, moments[2], [prepared]).end([prepared]) is None


@pytest.mark.parametrize("is_clock", [True, False])
def test_what_is_open_elsewhere_is_not_gone_because_another_server_is_asked(is_clock: bool) -> None:
    """A standby that takes the place of its primary shows the same transactions by other names."""
    primary = Moment("a", is_clock, "server 1", 10 * SECOND, 100 * SECOND, 99 * SECOND)
    standby = Moment("a", is_clock, "standby", None, 200 * SECOND, 199 * SECOND)
    before = Horizon.observed(None, primary, [Transaction("1/7", "hidden")])

    seen = [Transaction("primary before 9", "in progress", writes=True)]

    assert Horizon.observed(None, standby, seen).end(seen) is None
    assert Horizon.observed(before, standby, seen).end(seen) is None


def test_observations_of_another_axis_tell_nothing() -> None:
    before = Horizon.observed(None, Moment("a", False, "1", 0, SECOND, 5, 4), [])

    after = Horizon.observed(before, Moment("b", False, "1", 0, 2 * SECOND, 9, 8), [Transaction("1", "hidden")])

    assert after.end([Transaction("1", "hidden")]) is None


def test_a_read_is_never_less_complete_than_the_one_before() -> None:
    before, now = ReadEnd("2026-01-02T00:00:00.000000+00:00"), ReadEnd("2026-01-01T00:00:00.000000+00:00")

    assert now.since(before).complete_as_of == before.complete_as_of
    assert ReadEnd.from_json(before.to_json()) == before


MOMENTS = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001 - hypothesis wants them without


@settings(max_examples=120, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    kind=st.sampled_from(["timestamp", "date"]),
    moment=MOMENTS,
    later=st.timedeltas(timedelta(), timedelta(hours=30)),
)
def test_a_wall_in_a_declared_zone_never_shows_an_earlier_time_again(
    zone: str, kind: str, moment: datetime, later: timedelta
) -> None:
    axis = Axis.of(CursorSpec("at", timezone=zone), kind)
    wall = (moment + later).astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    reached = axis.reached(micros(moment), 1)

    assert micros(wall.date() if kind == "date" else wall) >= reached


def test_where_a_clock_is_put_back_a_read_ends_at_the_time_it_will_show() -> None:
    axis = Axis.of(CursorSpec("at", timezone="Europe/Zurich"), "timestamp")

    def reached(*moment: int) -> str:
        return axis.text(axis.reached(micros(datetime(*moment, tzinfo=UTC)), 1))

    assert reached(2026, 10, 24, 12) == "2026-10-24 14:00:00.000000"
    assert reached(2026, 10, 25, 0, 30) == "2026-10-25 02:00:00.000000"  # The wall shows 02:30 for the first time.
    assert reached(2026, 10, 25, 1, 30) == "2026-10-25 02:30:00.000000"


@settings(max_examples=200, deadline=None)
@given(
    digits=st.integers(0, 6),
    moment=MOMENTS,
    later=st.timedeltas(timedelta(), timedelta(seconds=3)),
    is_rounded=st.booleans(),
    seen=st.integers(-(10**9), 10**9),
)
def test_coarse_times_never_end_inside_the_unit_of_the_clock(
    digits: int, moment: datetime, later: timedelta, is_rounded: bool, seen: int
) -> None:
    """Whatever is stamped later, rounded or cut to as many digits as the values that were seen have, is not below."""
    axis = Axis.of(CursorSpec("at"), "timestamptz")
    stamp, unit = micros(moment + later), 10 ** (6 - digits)
    stored = (stamp + unit // 2) // unit * unit if is_rounded else stamp // unit * unit

    reached = axis.reached(micros(moment), seen * unit)

    assert micros(moment) - SECOND < reached <= stored


@settings(max_examples=100, deadline=None)
@given(moment=MOMENTS, offset=st.integers(-12 * 60, 14 * 60))
def test_a_date_ends_at_the_earliest_that_it_can_be_anywhere(moment: datetime, offset: int) -> None:
    axis = Axis.of(CursorSpec("on"), "date")
    somewhere = (moment + timedelta(minutes=offset)).date()

    assert axis.text(axis.reached(micros(moment), 1)) <= somewhere.isoformat()


def test_wall_times_are_held_back_from_the_greatest_until_it_has_stood_for_long_enough() -> None:
    axis = Axis.of(CursorSpec("at", hold_back=timedelta(minutes=5)), "timestamp")
    greatest = micros(datetime(2026, 1, 1, 12, tzinfo=UTC))

    assert axis.text(axis.held_back_from(greatest, 0)) == "2026-01-01 11:55:00.000001"
    assert axis.text(axis.held_back_from(greatest, 300 * SECOND)) == "2026-01-01 12:00:00.000001"
    assert Axis.of(CursorSpec("n", hold_back=5), "int64").held_back_from(100, 10**12) == 96


@pytest.mark.parametrize("offset", [-5, 0, 5.75, 14])
def test_a_fresh_wall_time_is_known_for_one_whatever_its_zone(offset: float) -> None:
    axis, now = Axis.of(CursorSpec("at"), "timestamp"), micros(datetime(2026, 1, 1, 12, tzinfo=UTC))
    wall = now + int(offset * 3600) * SECOND

    assert axis.fresh_for(wall - 300_001, now, MARGIN) == MARGIN - 300_000
    assert axis.fresh_for(wall, now, MARGIN) == MARGIN + SECOND  # A whole second, so perhaps of a clock of seconds.
    assert axis.fresh_for(wall - 60 * SECOND + 1, now, MARGIN) == 0


def test_nothing_comes_after_the_end_of_time() -> None:
    axis = Axis.of(CursorSpec("at"), "timestamp")

    for text in ("Infinity", str(micros(date.max) + 86_400 * SECOND)):
        with pytest.raises(InvalidInputError) as refused:
            axis.reachable(None, axis.read(text))
        assert refused.value.code == "cursor.at_maximum"


@pytest.mark.parametrize("kind", ["int64", "timestamptz"])
def test_only_times_without_a_zone_take_one(kind: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Axis.of(CursorSpec("at", timezone="Europe/Zurich"), kind)
    assert refused.value.code == "cursor.timezone"
