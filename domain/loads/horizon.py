"""How far a read by a cursor may go: which transactions of the source are open, and below what they may still commit.

A *place* is a number on the axis of the cursor: for cursors that the source's clock stamps, a moment in microseconds
since 1970; for others the cursor's own value. An observation fixes a place and then looks which transactions are open:
once all of these have ended, everything below the place can be seen. What began later lies above it. So each open
transaction carries a floor, the place of the last observation in which it was not open yet, and a read ends at the
lowest floor.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

MARGIN = 1_000_000
"""A transaction takes its time a moment before it can be seen; so many microseconds are more than that moment."""


@dataclass(frozen=True)
class Transaction:
    """An open or prepared transaction of a source.

    `started_at` is None where the reader's role may not see it. `writes` says that it holds a lock for writing what is
    read, or that nobody can say that it does not.
    """

    id: str
    session: str
    started_at: int | None = None
    is_prepared: bool = False
    writes: bool = False


@dataclass(frozen=True)
class Moment:
    """What the source showed just before its transactions were looked at.

    `life` names this start of the server; no session is older than `life_began_at`, where that is known. `place` is how
    far a read may go once the transactions that are open now have ended; None when there is nothing to read. `greatest`
    is the greatest value seen.
    """

    axis: str
    is_clock: bool
    life: str
    life_began_at: int | None
    at: int
    place: int | None
    greatest: int | None = None


@dataclass(frozen=True)
class Standing:
    """What is known of an open transaction: nothing of it comes below `floor`, and what others wrote is complete as of
    `as_of`; None where nothing is known. `since` is when it began, or was first seen.
    """

    floor: int | None
    as_of: int | None
    since: int


STANDBY = "standby"
"""The life of a source whose clock stands still while nothing is written on its primary."""


@dataclass(frozen=True)
class Horizon:
    """The last observation of a source and the transactions that were open at it; it travels from run to run."""

    axis: str
    life: str
    at: int
    place: int | None
    greatest: int | None
    stood_since: int
    standing: Mapping[str, Standing] = field(default_factory=dict)

    @classmethod
    def observed(cls, before: "Horizon | None", moment: Moment, transactions: Iterable[Transaction]) -> "Horizon":
        """Make the horizon of an observation, with what an earlier one knew of transactions that are still open."""
        if before is not None and before.axis != moment.axis:
            before = None
        seen = {found.id: found for found in transactions}
        gone = [was for name, was in before.standing.items() if name not in seen] if before is not None else []
        is_quiet = before is not None and before.greatest == moment.greatest
        return cls(
            axis=moment.axis,
            life=moment.life,
            at=moment.at,
            place=moment.place,
            greatest=moment.greatest,
            stood_since=before.stood_since if before is not None and is_quiet else moment.at,
            standing={name: _standing(found, moment, before, gone) for name, found in seen.items()},
        )

    def narrowed(self, transactions: Iterable[Transaction]) -> "Horizon":
        """Leave out what has ended since. What is new began above the place; but what is newly prepared may be one of
        those that are not open any more.
        """
        seen = {found.id: found for found in transactions}
        gone = [was for name, was in self.standing.items() if name not in seen]
        standing = {name: was for name, was in self.standing.items() if name in seen}
        if gone:
            lowest = Standing(
                _lowest(was.floor for was in gone), _lowest(was.as_of for was in gone), min(was.since for was in gone)
            )
            new = [found for found in seen.values() if found.is_prepared and found.id not in standing]
            standing |= {found.id: lowest for found in new}
        return Horizon(**{**vars(self), "standing": standing})

    def joined(self, name: str, into: str) -> "Horizon":
        """Let what was known of one transaction stand for another that ends no earlier."""
        return Horizon(
            **{**vars(self), "standing": {into if n == name else n: was for n, was in self.standing.items()}}
        )

    def judged(
        self, transactions: Iterable[Transaction], now: int, patience: timedelta | None
    ) -> tuple[list[Transaction], list[Transaction]]:
        """Those that still count, and those of which is assumed that they write no more: they have been open for longer
        than the patience and hold no lock for writing what is read.
        """
        counted: list[Transaction] = []
        assumed: list[Transaction] = []
        for found in transactions:
            if found.id not in self.standing:
                continue
            is_long = patience is not None and now - self.standing[found.id].since >= microseconds(patience)
            (assumed if is_long and not found.writes and not found.is_prepared else counted).append(found)
        return counted, assumed

    def end(self, counted: Iterable[Transaction]) -> int | None:
        """The lowest place above which something may still come; None where nothing is known of it."""
        floors = [self.standing[found.id].floor for found in counted]
        return _lowest([self.place, *floors])

    def complete_as_of(self, counted: Iterable[Transaction]) -> int | None:
        """The source's clock up to which everything can be seen."""
        return _lowest([self.at - MARGIN, *(self.standing[found.id].as_of for found in counted)])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        standing = {name: [was.floor, was.as_of, was.since] for name, was in self.standing.items()}
        return {**vars(self), "standing": standing}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Horizon":
        """Rebuild what `to_json` gave."""
        return cls(**{**value, "standing": {name: Standing(*was) for name, was in value["standing"].items()}})


def _standing(found: Transaction, moment: Moment, before: Horizon | None, gone: Iterable[Standing]) -> Standing:
    was = before.standing.get(found.id) if before is not None else None
    since = found.started_at if found.started_at is not None else was.since if was is not None else moment.at
    if found.started_at is not None and moment.is_clock:
        return Standing(found.started_at, found.started_at, since)
    if was is not None:
        return Standing(was.floor, was.as_of, since)
    began = None if found.is_prepared else moment.life_began_at  # What is prepared outlives its server.
    is_elsewhere = before is not None and before.life != moment.life and not found.is_prepared
    if before is None or (is_elsewhere and (began is None or began <= before.at)):
        return Standing(began if moment.is_clock else None, began, since)
    # It was not open at the observation before; what is prepared may have been open as another.
    earlier = list(gone) if found.is_prepared else []
    floor = _lowest([before.place, *(other.floor for other in earlier)])
    as_of = _lowest([before.at - MARGIN, *(other.as_of for other in earlier)])
    return Standing(floor, as_of, since)


def _lowest(places: Iterable[int | None]) -> int | None:
    found = list(places)
    known = [place for place in found if place is not None]
    return min(known) if len(known) == len(found) else None


@dataclass(frozen=True)
class ReadEnd:
    """Why a read ends where it does, in words, and what the next one needs to know.

    `complete_as_of` is the source's clock up to which the read was complete, as a time in UTC. `held_back` tells of
    transactions below which the read had to stop, `assumed` of such that were passed over, `unknown` of what the source
    cannot tell.
    """

    complete_as_of: str | None = None
    held_back: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    horizon: Horizon | None = None
    """What the next plan goes on from."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Everything a reader of the plan or the report has to know."""
        return (*self.held_back, *self.assumed, *self.unknown)

    @property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """The same by what they are about."""
        told = {"held_back": self.held_back, "assumed": self.assumed, "unknown": self.unknown}
        return {name: sentences for name, sentences in told.items() if sentences}

    def since(self, before: "ReadEnd | None") -> "ReadEnd":
        """The same, complete at least as of what an earlier one was."""
        times = [end.complete_as_of for end in (self, before) if end is not None and end.complete_as_of is not None]
        return ReadEnd(**{**vars(self), "complete_as_of": max(times, default=None)})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        words = {name: list(getattr(self, name)) for name in ("held_back", "assumed", "unknown")}
        return {**vars(self), **words, "horizon": self.horizon.to_json() if self.horizon is not None else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ReadEnd":
        """Rebuild what `to_json` gave."""
        words = {name: tuple(value.get(name) or ()) for name in ("held_back", "assumed", "unknown")}
        horizon = value.get("horizon")
        return cls(
            value.get("complete_as_of"), **words, horizon=Horizon.from_json(horizon) if horizon is not None else None
        )


def microseconds(span: timedelta) -> int:
    """A span in microseconds."""
    return span // timedelta(microseconds=1)


def clock_text(moment: int) -> str:
    """A moment as a time in UTC."""
    earliest, latest = -62_135_596_800_000_000, 253_402_300_799_999_999
    bounded = min(max(moment, earliest), latest)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=bounded)).isoformat(timespec="microseconds")
