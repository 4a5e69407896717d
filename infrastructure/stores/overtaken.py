"""When a refused row is overtaken: a later row of its merge key has landed, so that a replay would put back an older
one. The same in every store.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from domain.loads.checkpoint import Position
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


@dataclass(frozen=True)
class Kept:
    """What the quarantine says of a row that is replayed, and whether its lane alone writes the table."""

    merge_key: str | None
    is_alone: bool


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

    def left(self, proven: Sequence[bool], there: Collection[int], target: Target) -> set[int]:
        """The ordinals of rows that stay, as they may be older than what is there, or was: not one whose key the table
        has and that is merged by its cursor, nor one whose key it has not and never deletes. `there` are the numbers of
        rows whose key it has.
        """
        stay = set()
        for number, (ordinal, is_proven, deletes) in enumerate(zip(self.ordinals, proven, self.deleted, strict=True)):
            is_there = number in there
            may_be_older = target.newest_by is None if is_there else target.deletes and not deletes
            if not is_proven and may_be_older:
                stay.add(ordinal)
        return stay

    def landed(self, left: Collection[int]) -> dict[str, Position]:
        """The keys of rows that were not left, with their places: what was refused before them is overtaken."""
        found = zip(self.keys, self.ordinals, self.places, strict=True)
        return {key: place for key, ordinal, place in found if key is not None and ordinal not in left}


def is_before(place: Position, other: Position) -> bool:
    """Whether a refused row was read before another."""
    first, second = ((read_set, stream, int(seq), int(ordinal)) for read_set, stream, seq, ordinal in (place, other))
    return first < second
