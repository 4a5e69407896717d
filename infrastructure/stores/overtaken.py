"""When a refused row is overtaken: a later row of its merge key has landed, so that a replay would put back an older
one. The same in every store.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

import pyarrow as pa

from domain.loads.checkpoint import Merged, Position
from domain.ports.data_store import JudgedBatch, Target
from domain.stores.table import DELETED, ORDINAL
from infrastructure.tabular.arrow import to_table
from infrastructure.tabular.digests import merge_keys


def keys_of(rows: pa.Table, target: Target) -> list[str | None]:
    """What the merge keys of accepted rows are known by."""
    uuids = [column.name for column in target.columns if column.name in target.key and column.type == "uuid"]
    return merge_keys(rows.select(list(target.key)), uuids)


def landing_keys(batch: JudgedBatch, target: Target) -> dict[str, int]:
    """The merge keys of the rows of a batch that land, with their ordinals."""
    rows = to_table(batch.accepted)
    if not rows.num_rows:
        return {}
    keys = zip(keys_of(rows, target), rows.column(ORDINAL).to_pylist(), strict=True)
    return {key: ordinal for key, ordinal in keys if key is not None}


def overtaken_within(batch: JudgedBatch, landing: Mapping[str, int]) -> list[bool]:
    """Whether a row that lands comes behind each refused row of the same batch, and has its key."""
    refused = to_table(batch.refused)
    pairs = zip(refused.column("merge_key").to_pylist(), refused.column("ordinal").to_pylist(), strict=True)
    return [key is not None and landing.get(key, -1) > ordinal for key, ordinal in pairs]


class Deletions(StrEnum):
    """What a pipeline has ever deleted from its table, whatever its document says by now: nothing, the keys that a
    whole read lacked, or those of rows that said so. It is noted beside the table before it is done.
    """

    NONE = "none"
    MISSING = "missing"
    SAID = "said"

    @classmethod
    def noted(cls, target: Target, before: str | None) -> str | None:
        """What is noted from the opening of a read set on; None where an earlier version has noted nothing."""
        if target.deletes or before == cls.SAID:
            return cls.SAID.value
        return cls.MISSING.value if before == cls.NONE and target.delete_missing is not None else before


def may_be_gone(target: Target, own: Iterable[str | None], others: Iterable[str | None]) -> bool:
    """Whether a key that a table has not may have been there, given what is noted of its pipelines.

    What a pipeline deletes as its read lacks it, supersedes its own refusals. Of its own past, where an earlier version
    has noted none, its document stands for it: else no row that the earlier version refused could be replayed so.
    """
    has_said = target.deletes or Deletions.SAID in own
    return has_said or any(found != Deletions.NONE for found in others)


@dataclass(frozen=True)
class Kept:
    """What the quarantine says of a row that is replayed, and whether its lane alone writes the table."""

    merge_key: str | None
    is_alone: bool


@dataclass(frozen=True)
class Compared:
    """What a store says of one of the rows that may be merged: `key` is the same number for all whose keys it holds
    equal. The table may have the key, and there with as great a cursor; `rank` compares the row's own cursor with those
    of the same key, None where it is NULL.
    """

    key: int
    is_there: bool
    is_there_later: bool
    rank: int | None


@dataclass(frozen=True)
class Held:
    """How a key stands in the table once some of the rows have landed: `row` is the number of the one that came last,
    None while it is as the table had it.
    """

    is_there: bool
    row: int | None = None


@dataclass(frozen=True)
class Landing:
    """What becomes of rows that are replayed: the ordinals of those that are `left`, and the numbers of those that are
    merged, one of each key. The others lie below one of these, or below a later one that the table has.
    """

    left: frozenset[int]
    merged: frozenset[int]

    def mask(self, count: int) -> list[bool]:
        """Which of so many rows are merged."""
        return [number in self.merged for number in range(count)]


@dataclass(frozen=True)
class Replayed:
    """The rows of a batch that is replayed and merged: where each comes from, and whether it is proven to be the newest
    of its key. It is where its key was known when it was refused and is the same now: a later row would have overtaken
    it.
    """

    origins: Sequence[Position]
    ordinals: Sequence[int]
    keys: Sequence[str | None]
    deleted: Sequence[bool]

    @classmethod
    def of(cls, batch: JudgedBatch, target: Target) -> "Replayed":
        """Look at a batch."""
        rows = to_table(batch.accepted)
        deleted = rows.column(DELETED).to_pylist() if target.deletes else [False] * rows.num_rows
        return cls(batch.origins or (), rows.column(ORDINAL).to_pylist(), keys_of(rows, target), deleted)

    @property
    def places(self) -> list[Position]:
        """The place of each row."""
        return [self.origins[ordinal] for ordinal in self.ordinals]

    def proven(self, kept: Mapping[Position, Kept]) -> list[bool]:
        """Which rows are proven, where the table holds only those keys equal that are written alike."""
        found = [kept.get(place) for place in self.places]
        return [
            key is not None and row is not None and row.is_alone and row.merge_key == key
            for key, row in zip(self.keys, found, strict=True)
        ]

    def landing(
        self, proven: Sequence[bool], compared: Sequence[Compared], target: Target, *, may_be_gone: bool
    ) -> Landing:
        """What becomes of each row, as if they came one by one: a batch of any size ends alike. One that is not proven
        stays where it may be older than what is there, or was: where the table has its key and does not merge by the
        cursor, or where it has not, and somebody may have deleted it, `may_be_gone`. With one row stay all that were
        made of the same.
        """
        held: dict[int, Held] = {}
        left = set()
        numbers = sorted(range(len(self.ordinals)), key=self.ordinals.__getitem__)
        for ordinal, made in groupby(numbers, self.ordinals.__getitem__):
            last = {compared[number].key: number for number in made}
            before = {key: held.get(key, Held(compared[number].is_there)) for key, number in last.items()}
            lands = {
                key: proven[number] or self._lands(number, before[key], compared, target, may_be_gone=may_be_gone)
                for key, number in last.items()
            }
            if None in lands.values():
                left.add(ordinal)
                continue
            held |= {key: Held(not self.deleted[last[key]], last[key]) for key in last if lands[key]}
        return Landing(frozenset(left), frozenset(state.row for state in held.values() if state.row is not None))

    def _lands(
        self, number: int, before: Held, compared: Sequence[Compared], target: Target, *, may_be_gone: bool
    ) -> bool | None:
        """Whether an unproven row lands, or what is there lies above it; None where neither is known."""
        row = compared[number]
        if not before.is_there:
            return None if may_be_gone and not self.deleted[number] else True
        if target.newest_by is None:
            return None
        if before.row is None:
            return not row.is_there_later
        other = compared[before.row].rank
        return other is None or row.rank is None or other < row.rank

    def landed(self, left: Collection[int]) -> dict[str, Position]:
        """The keys of rows that were not left, with their places: what was refused before them is overtaken."""
        found = zip(self.keys, self.ordinals, self.places, strict=True)
        return {key: place for key, ordinal, place in found if key is not None and ordinal not in left}

    def merged(self, landing: Landing, merged: Merged) -> Merged:
        """What a replayed batch did, given what merging did: other rows are left, or lie below one that is there."""
        stay = sum(ordinal in landing.left for ordinal in self.ordinals)
        hidden = len(self.ordinals) - stay - len(landing.merged)
        return merged + Merged(repeated=hidden) + Merged.leaving(len(landing.left), stay)


def repaired(batch: JudgedBatch, left: Collection[int]) -> list[Position]:
    """The places of the rows of a replayed batch that have landed, or would lie below one that is there, and of those
    of which the steps leave nothing.
    """
    origins, rows = batch.origins or (), to_table(batch.accepted)
    accepted = set(rows.column(ORDINAL).to_pylist()) if rows.num_rows else set()
    filtered = set(range(len(origins))) - accepted - set(to_table(batch.refused).column("ordinal").to_pylist())
    assert len(filtered) <= batch.counts.filtered, "A row that is replayed went missing before it was to land."
    return [origins[ordinal] for ordinal in sorted(filtered | accepted.difference(left))]


def is_before(place: Position, other: Position) -> bool:
    """Whether a refused row was read before another."""
    first, second = ((read_set, stream, int(seq), int(ordinal)) for read_set, stream, seq, ordinal in (place, other))
    return first < second
