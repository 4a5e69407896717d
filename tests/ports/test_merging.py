"""Merging by key, on every store: last of each key, deletions, missing keys, and columns that appear (D5, D8)."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import QualityRejectedError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import CursorSpec, DeleteMissing, Mode, SourceSpec
from domain.ports.data_store import IDataStore, JudgedBatch, Publication, Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import StagedChecks
from domain.stores.table import DELETED, Column, TableName
from tests.ports.backends import Backend
from tests.ports.loading import ACCEPTED, COLUMNS, LANE, REFUSED, TABLE, content, ids, read_set, refusal, token_of


def merging(planned: ReadSet, **changes: Any) -> Target:
    plain = Target(TABLE, Mode.MERGE, planned.shadow, COLUMNS, "01890000-0000-7000-8000-000000000000", False)
    return replace(plain, key=("id",), **changes)


def noted(notes: dict[int, str | None], deleted: tuple[int, ...] | None = None) -> JudgedBatch:
    columns: dict[str, Any] = {
        "id": pa.array(list(notes), pa.int64()),
        "note": pa.array(list(notes.values()), pa.string()),
    }
    if deleted is not None:
        columns[DELETED] = pa.array([key in deleted for key in notes])
    count = len(notes)
    counts = Counts(read=count, used=count, produced=count)
    return JudgedBatch(pa.table(columns), REFUSED.empty_table(), counts, Measures())


async def load(store: IDataStore, fence: int, planned: ReadSet, target: Target, *batches: JudgedBatch) -> Publication:
    async with store.owner(LANE, TABLE, fence, token=await token_of(store)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
        await owner.take_over()
        counts, measures = Counts(), Measures()
        for seq, batch in enumerate(batches, start=1):
            counts += batch.counts
            is_last = seq == len(batches)
            async with store.writer(LANE, target, planned.id, "0", fence, await token_of(store)) as writer:
                update = CheckpointUpdate(seq, (str(seq),), counts, measures, is_last)
                committed = await writer.commit(batch, update)
            if committed.merged is not None:
                update = update.with_merged(committed.merged)
                counts, measures = update.counts, update.measures
        return await owner.publish(planned, target, StagedChecks(), lambda _: ACCEPTED)


async def held(store: IDataStore) -> dict[int, str | None]:
    return {row["id"]: row["note"] for row in await content(store)}


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_last_row_of_each_key_is_what_the_table_holds(shadow: bool, store: IDataStore) -> None:
    first, second = read_set(shadow=shadow), read_set(shadow=shadow, name="r2")
    await load(store, 1, first, merging(first), noted({1: "a", 2: "b"}), noted({2: "c", 3: "d"}))
    assert await held(store) == {1: "a", 2: "c", 3: "d"}

    publication = await load(store, 2, second, merging(second), noted({3: None, 4: "e"}), noted({4: "f"}))

    assert await held(store) == {1: "a", 2: "c", 3: None, 4: "f"}
    assert publication.counts.produced == 3
    assert publication.counts.deduplicated == (1 if shadow else 0)


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])
async def test_row_that_says_its_key_is_gone_deletes_it_and_inserts_nothing(shadow: bool, store: IDataStore) -> None:
    first, second = read_set(shadow=shadow), read_set(shadow=shadow, name="r2")
    await load(store, 1, first, merging(first, deletes=True), noted({1: "a", 2: "b"}, deleted=()))

    await load(
        store, 2, second, merging(second, deletes=True),
        noted({1: "x", 7: "never there"}, deleted=(1, 7)), noted({2: "kept"}, deleted=()),
    )  # fmt: skip

    assert await held(store) == {2: "kept"}


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 22)
async def test_keys_that_a_full_read_lacks_are_deleted_or_marked_up_to_a_share(store: IDataStore) -> None:
    def planned(name: str) -> ReadSet:
        return read_set(shadow=True, name=name)

    hard = {"delete_missing": DeleteMissing.HARD, "max_deleted_share": 0.5}
    await load(store, 1, planned("r1"), merging(planned("r1")), noted({1: "a", 2: "b", 3: "c", 4: "d"}))
    with pytest.raises(QualityRejectedError) as refused:
        await load(store, 2, planned("r2"), merging(planned("r2"), **hard), noted({1: "z"}))
    assert refused.value.code == "delete_missing.share"
    assert await held(store) == {1: "a", 2: "b", 3: "c", 4: "d"}

    await load(store, 3, planned("r3"), merging(planned("r3"), **hard), noted({1: "z", 2: "b", 5: "e"}))
    assert await held(store) == {1: "z", 2: "b", 5: "e"}

    soft = {"delete_missing": DeleteMissing.SOFT, "max_deleted_share": 1.0}
    await load(store, 4, planned("r4"), merging(planned("r4"), **soft), noted({2: "b"}))
    marked = {row["id"]: row["_headrace_deleted_at"] is not None for row in await content(store)}
    assert marked == {1: True, 2: False, 5: True}
    await load(store, 5, planned("r5"), merging(planned("r5"), **soft), noted({1: "back", 2: "b"}))
    marked = {row["id"]: row["_headrace_deleted_at"] is not None for row in await content(store)}
    assert marked == {1: False, 2: False, 5: True}


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 22)
async def test_refused_rows_are_not_taken_for_missing(store: IDataStore) -> None:
    first, second = read_set(shadow=True), read_set(shadow=True, name="r2")
    await load(store, 1, first, merging(first), noted({1: "a", 2: "b"}))
    part = noted({1: "z"})
    refused = pa.Table.from_pylist([refusal(1)], REFUSED)
    part = JudgedBatch(part.accepted, refused, Counts(read=2, used=1, produced=1, quarantined=1), Measures())
    hard = merging(second, delete_missing=DeleteMissing.HARD)

    publication = await load(store, 2, second, hard, part)

    assert await held(store) == {1: "z", 2: "b"}
    assert "skipped" in (publication.measures.delete_missing or "")


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 21)
async def test_full_refresh_of_a_merge_leaves_the_last_of_each_key_only(store: IDataStore) -> None:
    first, second = read_set(shadow=True), read_set(shadow=True, name="r2")
    await load(store, 1, first, merging(first), noted({1: "a", 2: "b"}))

    await load(store, 2, second, merging(second, replaces=True), noted({2: "x", 3: "y"}), noted({3: "z"}))

    assert await held(store) == {2: "x", 3: "z"}


@pytest.mark.clause("IDataStore", 23)
@pytest.mark.invariant("D5")
@pytest.mark.parametrize("mode", [Mode.APPEND, pytest.param(Mode.MERGE, marks=pytest.mark.needs("merges"))])
async def test_new_columns_are_added_once_and_open_loads_get_them_too(mode: Mode, store: IDataStore) -> None:
    first = read_set()
    wide = (*COLUMNS, Column("far", "bool"), Column("at", "timestamptz"))
    narrow = replace(merging(first), mode=mode)
    async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
        await owner.take_over()
        await owner.open_read_set(first, narrow)
        await owner.fit(replace(narrow, columns=wide))
        await owner.fit(replace(narrow, columns=wide))
    described = await store.describe(TABLE)

    assert described is not None
    assert [(column.name, column.type) for column in described.columns] == [(c.name, c.type) for c in wide]
    async with store.writer(LANE, narrow, first.id, "0", 1, await token_of(store)) as writer:
        await writer.commit(noted({1: "a"}), CheckpointUpdate(1, ("1",), Counts(1, 1, 0, 1), Measures(), is_last=True))
    assert await ids(store) == [1]


@pytest.mark.clause("IDataStore", 24)
@pytest.mark.parametrize(("lookback", "expected"), [(2, [[3, 4, 5]]), (None, [[5]])])
async def test_lookback_reads_some_of_what_was_read_before_again(
    lookback: int | None, expected: list[list[int]], store: IDataStore, backend: Backend
) -> None:
    table = TableName("s")
    await store.write(table, [pa.table({"id": pa.array([1, 2, 3, 4, 5], pa.int64())})])
    source = SourceSpec(table=table, cursor=CursorSpec("id", lookback=lookback), key=("id",))

    plan = await store.plan(source, lo="5", limit=None)

    async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
        assert [pa.table(b.data).column("id").to_pylist() async for b in reader.batches(None)] == expected
    assert plan.hi == "6"
