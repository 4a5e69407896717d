"""What a replay lands, leaves and deletes is the same wherever its batches end, and as if its rows came one by one."""

import random
from dataclasses import dataclass, replace
from itertools import count

import pyarrow as pa
import pytest

from domain.pipelines.spec import Mode
from domain.ports.data_store import JudgedBatch, Target
from domain.quality.measures import Counts, Measures
from domain.stores.table import DELETED, ORDINAL, Column, TableName
from infrastructure.stores.memory.content import Content, append_rows, compared, create_table, merge_rows
from infrastructure.stores.overtaken import Replayed, repaired
from infrastructure.transforms.refused import REFUSED

COLUMNS = (Column("k", "string"), Column("c", "int64"), Column("v", "int64"))
TARGET = Target(TableName("t"), Mode.MERGE, None, COLUMNS, "r", metadata_columns=False, key=("k",), deletes=True)


@dataclass(frozen=True)
class Row:
    """A row that is replayed; those with the same source were made of one."""

    source: int
    value: int
    key: str
    cursor: int | None
    is_proven: bool
    deletes: bool


def some_rows(chance: random.Random) -> list[Row]:
    sources = [source for source in range(chance.randint(1, 6)) for _ in range(chance.choice((1, 1, 1, 2)))]
    return [
        Row(
            source, value, chance.choice("ab"), chance.choice((1, 2, 3, None)),
            is_proven=chance.random() < 0.4, deletes=chance.random() < 0.25,
        )
        for source, value in zip(sources, count(), strict=False)
    ]  # fmt: skip


def lands(content: Content, rows: list[Row], target: Target, *, may_be_gone: bool) -> list[int]:
    """Replay a batch; return the sources that are repaired."""
    sources = sorted({row.source for row in rows})
    columns = {
        "k": pa.array([row.key for row in rows]),
        "c": pa.array([row.cursor for row in rows], pa.int64()),
        "v": pa.array([row.value for row in rows], pa.int64()),
        DELETED: pa.array([row.deletes for row in rows]),
    }
    merging = pa.table(columns)
    ordinals = pa.array([sources.index(row.source) for row in rows], pa.int64())
    places = tuple(("r", "0", "1", str(source)) for source in sources)
    accepted = merging.append_column(ORDINAL, ordinals)
    batch = JudgedBatch(accepted, REFUSED.empty_table(), Counts(), Measures(), places)
    found = Replayed.of(batch, target)
    proven = [row.is_proven for row in rows]

    landing = found.landing(proven, compared(content, target, merging), target, may_be_gone=may_be_gone)
    part = merging.filter(landing.mask(len(rows)))
    merged = found.merged(landing, merge_rows(content, replace(target, newest_by=None), part))

    assert len(rows) + merged.left.produced == len(landing.merged) + merged.repeated
    return [int(place[3]) for place in repaired(batch, landing.left)]


@pytest.mark.invariant("D9", "D6")
@pytest.mark.parametrize("newest_by", [None, "c"], ids=["no cursor", "cursor"])
@pytest.mark.parametrize("may_be_gone", [True, False], ids=["may be gone", "never deleted"])
def test_a_replay_in_batches_of_any_size_ends_alike(newest_by: str | None, may_be_gone: bool) -> None:
    chance, target = random.Random(7), replace(TARGET, newest_by=newest_by)
    for _ in range(150):
        rows, there, ends = some_rows(chance), chance.choice((None, 1, 2)), []
        for size in (1, 2, 3, len(rows)):
            content, done = Content(), list[int]()
            create_table(content, target.table, COLUMNS)
            if there is not None:
                append_rows(content, target.table, pa.table({"k": ["a"], "c": [there], "v": [-1]}))
            for first in range(0, rows[-1].source + 1, size):
                part = [row for row in rows if first <= row.source < first + size]
                done += lands(content, part, target, may_be_gone=may_be_gone)
            ends.append((content.tables["t"][1].sort_by("k").to_pylist(), done))
        assert ends == ends[:1] * len(ends), rows
