"""What one run reads: planned once, stored, and never planned again on a resume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from domain.loads.horizon import ReadEnd


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


@dataclass(frozen=True)
class ReadSet:
    """The stored plan of one run's read; `lo <= cursor < hi` where there is a cursor.

    `fingerprint` ties it to the source, cursor, key and destination of the spec: only a spec with the same one may
    finish it. `shadow` names the staging table, if any. `expected` holds the counts that `completeness` compares with,
    `baseline` the profiles that `distribution` does. `generation` is the lane's when it was planned: once the lane has
    moved on, this read set is over and is never opened (again), whatever the records say. `is_adopted`: an earlier run
    planned it and did not finish it. `completed_first` tells of such a read set that the same run has completed before
    it planned this one.
    """

    id: str
    fingerprint: str
    plan: SourcePlan
    batch_rows: int
    shadow: str | None = None
    expected: Mapping[str, int] | None = None
    baseline: Mapping[str, Any] | None = None
    generation: int | None = None
    batch_bytes: int = 64 * 1024 * 1024
    is_adopted: bool = False
    completed_first: Mapping[str, Any] | None = None

    @property
    def is_whole(self) -> bool:
        """Everything the source has is read, whatever was read before."""
        return self.plan.lo is None and self.plan.limit is None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; shallow by hand, as `asdict` copies every column deeply."""
        plan = vars(self.plan) | {
            "streams": [vars(stream) for stream in self.plan.streams],
            "files": [vars(file) for file in self.plan.files],
            "end": vars(self.plan.end) if self.plan.end is not None else None,
        }
        return {**vars(self), "plan": plan}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ReadSet":
        """Rebuild what `to_json` gave."""
        plan = value["plan"]
        return cls(
            id=value["id"],
            fingerprint=value["fingerprint"],
            batch_rows=value["batch_rows"],
            shadow=value["shadow"],
            expected=value["expected"],
            baseline=value.get("baseline"),
            generation=value.get("generation"),
            batch_bytes=value.get("batch_bytes", 64 * 1024 * 1024),
            is_adopted=value.get("is_adopted", False),
            completed_first=value.get("completed_first"),
            plan=SourcePlan(
                columns=tuple((name, kind) for name, kind in plan["columns"]),
                streams=tuple(Stream(**stream) for stream in plan["streams"]),
                ordered=plan["ordered"],
                order=tuple(plan["order"]),
                lo=plan["lo"],
                hi=plan["hi"],
                files=tuple(SourceFile(**file) for file in plan["files"]),
                limit=plan["limit"],
                is_text=plan["is_text"],
                note=plan["note"],
                warnings=tuple(plan.get("warnings", ())),
                partition=plan.get("partition"),
                end=ReadEnd.from_json(plan["end"]) if plan.get("end") else None,
                guessed=tuple(plan.get("guessed", ())),
                unproved=tuple(plan.get("unproved", ())),
                is_proved=plan.get("is_proved"),
                untrusted=plan.get("untrusted"),
            ),
        )


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
