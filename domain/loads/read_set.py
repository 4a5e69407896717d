"""What one run reads: planned once, stored, and never planned again on a resume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any
from uuid import UUID

from domain.loads.horizon import ReadEnd
from domain.quality.profile import Profile
from domain.runs.report import RunReport
from domain.runs.run import WorkPlan

BATCH_BYTES = 64 * 1024 * 1024
"""A batch has about so many bytes where nobody says otherwise."""
OF_CHOSEN_PARAMETERS = "-p"
"""What the id of a read set ends with whose run chose parameters itself. It is kept with every row refused on the way,
so that of those too it is known that a read with the document's own parameters need not have them.
"""
_BELOW_TIME = 80
"""Bits of a UUIDv7 below its milliseconds."""


def id_after(new: str, latest: str | None) -> str:
    """The id for a read set that is opened after another: as it is where it is the greater, else as if it were a
    millisecond younger than that one's. It tells the time of a clock, which may be put back, or be another machine's.
    """
    try:
        mine, before = UUID(new).int, UUID((latest or "").removesuffix(OF_CHOSEN_PARAMETERS)).int
        if mine > before:
            return new
        time = (before >> _BELOW_TIME) + 1
        return str(UUID(int=time << _BELOW_TIME | mine % (1 << _BELOW_TIME)))
    except ValueError:  # There is none, or nobody made it by a clock.
        return new


@dataclass(frozen=True)
class SourceFile:
    """A file of the read set, pinned by size and etag."""

    path: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class Stream:
    """One partition: half-open range [lower, upper) of the partition column; None is unbounded.

    The stream without a lower bound also has the rows whose partition column is NULL.
    """

    name: str
    lower: str | None = None
    upper: str | None = None


@dataclass(frozen=True)
class SourcePlan:
    """What a source store answers when asked to plan a read.

    `ordered` says whether a total order makes the read resumable; `columns` (name, type) is fixed for the whole read
    set. `order` are the columns of that order, `partition` the one that the streams are ranges of. `limit` bounds the
    rows of a read without a cursor. `is_text` says that values arrive as text and are converted to `columns` on the
    way: those of the `guessed` columns, whose types nobody declared, only where they stay what was written. `unproved`
    are those of them of which not every value was looked at. `end` tells why a read by a cursor ends at `hi`.
    `is_proved`: no two rows can share a place in the order; False, and rows that do are kept in one batch; None in
    plans of earlier versions, which parted them. `untrusted` says why the order of a key is no place to go on from.
    """

    columns: tuple[tuple[str, str], ...]
    streams: tuple[Stream, ...]
    ordered: bool
    order: tuple[str, ...] = ()
    lo: str | None = None
    hi: str | None = None
    files: tuple[SourceFile, ...] = ()
    limit: int | None = None
    is_text: bool = False
    note: str | None = None
    warnings: tuple[str, ...] = ()
    partition: str | None = None
    end: ReadEnd | None = None
    guessed: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    is_proved: bool | None = None
    untrusted: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; shallow by hand, as `asdict` copies every column deeply."""
        return {
            **vars(self),
            "streams": [vars(stream) for stream in self.streams],
            "files": [vars(file) for file in self.files],
            "end": self.end.to_json() if self.end is not None else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SourcePlan":
        """Rebuild what `to_json` gave, in this version or another."""
        found = {known.name: value[known.name] for known in fields(cls) if known.name in value}
        names = {name: tuple(value.get(name) or ()) for name in ("order", "warnings", "guessed", "unproved")}
        return cls(
            **{
                **found,
                **names,
                "columns": tuple((name, kind) for name, kind in value["columns"]),
                "streams": tuple(Stream(**stream) for stream in value["streams"]),
                "files": tuple(SourceFile(**file) for file in value.get("files") or ()),
                "end": ReadEnd.from_json(value["end"]) if value.get("end") else None,
            }
        )


@dataclass(frozen=True)
class ReadSet(WorkPlan):
    """The stored plan of one run's read; `lo <= cursor < hi` where there is a cursor.

    `fingerprint` ties it to the source, cursor, key and destination of the spec: only a spec with the same one may
    finish it. `shadow` names the staging table, if any. `expected` holds the counts that `completeness` compares with,
    `baseline` the profiles that `distribution` does. `generation` is the lane's when it was planned: once the lane has
    moved on, this read set is over and is never opened (again), whatever the records say. `is_adopted`: an earlier run
    planned it and did not finish it. `completed_first` tells of such a read set that the same run has completed before
    it planned this one. `full_refresh`: it reads everything again, to take the table's place; None where an earlier
    version did not say it.
    """

    id: str
    fingerprint: str
    plan: SourcePlan
    batch_rows: int
    shadow: str | None = None
    expected: Mapping[str, int] | None = None
    baseline: Mapping[str, Profile] | None = None
    generation: int | None = None
    batch_bytes: int = BATCH_BYTES
    is_adopted: bool = False
    completed_first: RunReport | None = None
    full_refresh: bool | None = None

    @property
    def is_whole(self) -> bool:
        """Everything the document asks the source for is read, whatever was read before."""
        is_of_chosen = self.id.endswith(OF_CHOSEN_PARAMETERS)
        return self.plan.lo is None and self.plan.limit is None and not is_of_chosen

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        profiles = self.baseline
        return {
            **vars(self),
            "plan": self.plan.to_json(),
            "baseline": None if profiles is None else {name: found.to_json() for name, found in profiles.items()},
            "completed_first": self.completed_first.to_json() if self.completed_first is not None else None,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ReadSet":
        """Rebuild what `to_json` gave, in this version or another."""
        found = {known.name: value[known.name] for known in fields(cls) if known.name in value}
        profiles = value.get("baseline")
        if profiles is not None:
            found["baseline"] = {name: Profile.from_json(profile) for name, profile in profiles.items()}
        if first := value.get("completed_first"):
            found["completed_first"] = RunReport.from_json(first)
        return cls(**{**found, "plan": SourcePlan.from_json(value["plan"])})


def split(low: int, high: int, count: int) -> list[int]:
    """The inner borders of up to `count` ranges of equal width over [low, high], for units such as days or ids."""
    width = high - low + 1
    borders = [low + width * number // count for number in range(1, count)]
    return sorted({border for border in borders if low < border <= high})


def streams_between(borders: Sequence[str]) -> tuple[Stream, ...]:
    """Half-open streams that cover everything, named so that their order as text is their order."""
    bounds: list[str | None] = [None, *borders, None]
    digits = len(str(max(0, len(bounds) - 2)))
    return tuple(
        Stream(str(number).zfill(digits), lower, upper) for number, (lower, upper) in enumerate(pairwise(bounds))
    )
