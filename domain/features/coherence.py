"""The rules by which a cache in front of a view never shows what is older than what was said to be done.

A publication of a view has a number, counted by the store. A cached value carries the number of the publication that
last changed its entity; the marker of the view says which generation of values stands in the cache and how far it is.
Every write is a `Put`, judged in one atomic step by whoever holds the cache. Each rule is needed: `tests/models`
searches all interleavings of late, frozen and dead writers, evictions, flushes and restores, with each left out.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True)
class Marker:
    """What stands in the cache of a view: all pushes up to `pushed` and all loads up to `loaded`, written by those who
    had read up to `seen`.
    """

    generation: bytes
    """16 random bytes, never used twice."""
    seen: int
    pushed: int
    loaded: int

    def at_least(self, generation: bytes, *, pushed: int, loaded: int) -> bool:
        """Whether values beside it may be served by a reader who knows so much: never *equal*, as a reader who knew
        later than another sees greater marks without any fault.
        """
        return self.generation == generation and self.pushed >= pushed and self.loaded >= loaded

    def older(self, other: "Marker") -> "Marker":
        """What holds for both of two reads of one generation."""
        return Marker(
            self.generation,
            min(self.seen, other.seen),
            min(self.pushed, other.pushed),
            min(self.loaded, other.loaded),
        )


class Mark(StrEnum):
    """Which of the two marks a write moves."""

    PUSHED = "pushed"
    LOADED = "loaded"


@dataclass(frozen=True)
class Advance:
    """Moves a mark up to the snapshot; who moves it has read everything after `since`."""

    mark: Mark
    since: int


@dataclass(frozen=True)
class Chain:
    """The writes of one attempt to load: a token of its own (16 random bytes), and how many there were.

    The first has the count 0 and no rows: it begins the chain, whoever had it before.
    """

    token: bytes
    count: int


@dataclass(frozen=True)
class Put:
    """A write of rows that were read from the store at a snapshot: that holds exactly the publications up to it."""

    generation: bytes
    snapshot: int
    chain: Chain | None = None
    advance: Advance | None = None


class Outcome(StrEnum):
    """How a write ended; nothing was written but with OK."""

    OK = "ok"
    MOVED = "moved"
    """Another generation stands in the cache, or none."""
    FENCED = "fenced"
    """Another attempt has begun since, or the cache has lost some of this one."""
    BEHIND = "behind"
    """The cache has less than the writer believes: it has to read more."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a write, and what stands in the cache after it. `mark` is where the mark is that is behind;
    `takes_rows` is false also of what begins a chain, and of what was there before.
    """

    outcome: Outcome
    marker: Marker | None
    chain: Chain | None
    mark: int = 0
    takes_rows: bool = False


def judge(put: Put, marker: Marker | None, chain: Chain | None) -> Verdict:
    """Judge a write by what stands in the cache."""
    if marker is None or marker.generation != put.generation:
        return Verdict(Outcome.MOVED, marker, chain)
    own, advance = put.chain, put.advance
    is_start = own is not None and own.count == 0
    if own is not None and not is_start:
        if chain is None or chain.token != own.token or chain.count not in (own.count - 1, own.count):
            return Verdict(Outcome.FENCED, marker, chain)
        if chain.count == own.count:
            return Verdict(Outcome.OK, marker, chain)
    if advance is not None and (mark := _mark(marker, advance.mark)) < advance.since:
        return Verdict(Outcome.BEHIND, marker, chain, mark)
    if is_start:
        return Verdict(Outcome.OK, marker, own)
    after = replace(marker, seen=max(marker.seen, put.snapshot))
    if advance is not None:
        after = _moved(after, advance.mark, put.snapshot)
    return Verdict(Outcome.OK, after, own or chain, takes_rows=True)


def is_written(put: Put, marker: Marker, present: int | None, publication: int) -> bool:
    """Whether a row replaces what is present, by the numbers of their publications; `marker` is that of before.

    What is absent is made only by who has read as much as anybody before: somebody may have written what this one has
    not seen, and it was evicted.
    """
    return put.snapshot >= marker.seen if present is None else publication > present


def _mark(marker: Marker, mark: Mark) -> int:
    return marker.pushed if mark is Mark.PUSHED else marker.loaded


def _moved(marker: Marker, mark: Mark, to: int) -> Marker:
    if mark is Mark.PUSHED:
        return replace(marker, pushed=max(marker.pushed, to))
    return replace(marker, loaded=max(marker.loaded, to))
