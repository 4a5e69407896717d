"""Refused rows on every store: listed in order, replayed once, and what becomes of them with their run (D9)."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import ConflictError, InvalidInputError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.quarantine import PLACE, Refusals, RefusedState
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode, SourceSpec
from domain.ports.data_store import IDataStore, JudgedBatch, SourceBatch, Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import ORDINAL, RUN_ID, Column
from infrastructure.tabular.arrow import arrow_type
from infrastructure.tabular.json_rows import decoded, encoded, merged_shape, shape_of
from infrastructure.transforms.refused import REFUSED
from tests.ports.loading import (
    ACCEPTED,
    COLUMNS,
    LANE,
    TABLE,
    content,
    ids,
    opened,
    published,
    read_set,
    refusal,
    token_of,
)
from tests.ports.loading import commit as commit_batch
from tests.ports.loading import target as plain_target

MINE = Refusals("default", "orders", TABLE)
OPEN = replace(MINE, state=RefusedState.OPEN)
REPLAYS = Lane("default", "orders", "replay")
REPLAY_RUN = "01890000-0000-7000-8000-0000000000ff"


def refusing(*refused: int, accepted: tuple[int, ...] = ()) -> JudgedBatch:
    """A batch of which some rows, by their ids, are refused."""
    data = pa.table({"id": pa.array(accepted, pa.int64()), "note": pa.array(["ok"] * len(accepted), pa.string())})
    records = [refusal(n, json.dumps({"id": number, "note": "refused"})) for n, number in enumerate(refused)]
    counts = Counts(len(refused) + len(accepted), len(accepted), 0, len(accepted), 0, len(refused))
    return JudgedBatch(data, pa.Table.from_pylist(records, REFUSED), counts, Measures())


async def load(store: IDataStore, fence: int, name: str, *batches: JudgedBatch) -> None:
    planned = read_set(name=name)
    await opened(store, fence, planned)
    for seq, batch in enumerate(batches, start=1):
        await commit_batch(store, fence, planned, seq, batch, is_last=seq == len(batches))
    await published(store, fence, planned)


async def states(store: IDataStore, refusals: Refusals = MINE) -> list[tuple[int, str]]:
    found = await store.refused_rows(refusals, after=None, limit=100)
    return [(json.loads(row.record)["id"], row.state.value) for row in found]


def replaying(planned: ReadSet, **changes: Any) -> Target:
    plain = replace(plain_target(planned), run_id=REPLAY_RUN)
    return replace(plain, **changes)


async def replayed(store: IDataStore, fence: int, *, again: tuple[int, ...] = (), **changes: Any) -> list[SourceBatch]:
    """Replay the open rows in batches of two; those at `again` of each batch are refused again."""
    source = SourceSpec(refused=OPEN, key=PLACE)
    plan = await store.plan(source, lo=None, limit=None)
    planned = replace(read_set(name=f"replay{fence}"), plan=plan)
    target = replaying(planned, **changes)
    read: list[SourceBatch] = []
    counts = Counts()
    async with store.owner(REPLAYS, TABLE, fence, token=await token_of(store, REPLAYS)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
        async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
            async for batch in reader.batches(None):
                await land(store, fence, planned, target, batch, counts, again, len(read) + 1)
                counts += _counts(batch, again)
                read.append(batch)
        empty = JudgedBatch(pa.table(batch.data).slice(0, 0), REFUSED.empty_table(), Counts(), Measures(), ())
        async with store.writer(REPLAYS, target, planned.id, "0", fence, await token_of(store, REPLAYS)) as writer:
            await writer.commit(empty, CheckpointUpdate(len(read) + 1, None, counts, Measures(), is_last=True))
        await owner.publish(planned, target, StagedChecks(), lambda _: ACCEPTED)
    return read


async def land(
    store: IDataStore, fence: int, planned: ReadSet, target: Target, batch: SourceBatch, before: Counts,
    again: tuple[int, ...], seq: int,
) -> None:  # fmt: skip
    rows = pa.table(batch.data)
    kept = rows.append_column(ORDINAL, pa.array(range(rows.num_rows), pa.int64()))
    kept = kept.take([n for n in range(rows.num_rows) if n not in again])
    refused = pa.Table.from_pylist([refusal(n) for n in again if n < rows.num_rows], REFUSED)
    counts = _counts(batch, again)
    async with store.writer(REPLAYS, target, planned.id, "0", fence, await token_of(store, REPLAYS)) as writer:
        judged = JudgedBatch(kept, refused, counts, Measures(), batch.origins)
        await writer.commit(judged, CheckpointUpdate(seq, batch.position, before + counts, Measures(), is_last=False))


def _counts(batch: SourceBatch, again: tuple[int, ...]) -> Counts:
    rows = batch.data.num_rows
    refused = len([n for n in again if n < rows])
    return Counts(rows, rows - refused, 0, rows - refused, 0, refused)


@pytest.mark.clause("IDataStore", 27)
@pytest.mark.invariant("D9")
async def test_refused_rows_are_listed_in_order_and_open_once_their_run_is_published(store: IDataStore) -> None:
    assert await states(store) == []
    assert await store.refused_places(MINE, after=None, limit=9) == []
    planned = read_set(name="r1")
    await opened(store, 1, planned)
    await commit_batch(store, 1, planned, 1, refusing(5, 4, accepted=(1,)))
    assert await states(store) == [(5, "waiting"), (4, "waiting")]
    with pytest.raises(ConflictError) as nothing:
        await store.plan(SourceSpec(refused=OPEN, key=PLACE), lo=None, limit=None)
    assert nothing.value.code == "quarantine.empty"

    await commit_batch(store, 1, planned, 2, refusing(3), is_last=True)
    await published(store, 1, planned)
    await load(store, 2, "r2", refusing(2, accepted=(7,)))

    assert await states(store) == [(5, "open"), (4, "open"), (3, "open"), (2, "open")]
    first = await store.refused_rows(MINE, after=None, limit=3)
    rest = await store.refused_rows(MINE, after=first[-1].place, limit=3)
    assert [row.place for row in first] == [("r1", "0", "1", "0"), ("r1", "0", "1", "1"), ("r1", "0", "2", "0")]
    assert [row.place for row in rest] == [("r2", "0", "1", "0")]
    assert await store.refused_places(MINE, after=None, limit=9) == [row.place for row in (*first, *rest)]
    assert await store.refused_places(MINE, after=first[1].place, limit=1) == [first[2].place]
    for none in (replace(MINE, state=RefusedState.WAITING), replace(MINE, run_id="another")):
        assert await store.refused_places(none, after=None, limit=9) == []
    assert first[0].reason == "why"
    assert abs((first[0].refused_at - datetime.now(UTC)).total_seconds()) < 60
    assert await states(store, replace(MINE, organization="other")) == []
    assert await states(store, replace(MINE, run_id="another")) == []
    assert len(await states(store, replace(MINE, run_id=first[0].run_id))) == 4


@pytest.mark.clause("IDataStore", 27)
@pytest.mark.invariant("D9")
async def test_a_page_of_large_refused_rows_ends_early_and_a_replay_reads_them_all(store: IDataStore) -> None:
    await load(store, 1, "r1", refusing(1, 2, 3, accepted=(9,)), refusing(4, 5))
    size = len((await store.refused_rows(MINE, after=None, limit=1))[0].record)

    async def listed(after: Any, most: int) -> list[int]:
        rows = await store.refused_rows(MINE, after=after, limit=4, most_bytes=most)
        return [json.loads(row.record)["id"] for row in rows]

    first = await store.refused_rows(MINE, after=None, limit=1)
    assert await listed(None, 2 * size) == [1, 2]
    assert await listed(first[0].place, 3 * size) == [2, 3, 4]
    assert await listed(None, 1) == [1]
    assert await listed(None, 100 * size) == [1, 2, 3, 4]
    plan = await store.plan(SourceSpec(refused=OPEN, key=PLACE), lo=None, limit=None)
    async with store.reader(
        SourceSpec(refused=OPEN, key=PLACE), plan, plan.streams[0], batch_rows=50, batch_bytes=2 * size
    ) as reader:
        read = [pa.table(batch.data).column("id").to_pylist() async for batch in reader.batches(None)]
    assert read == [[1, 2], [3, 4], [5]]


@pytest.mark.clause("IDataStore", 27)
async def test_a_page_is_as_large_as_its_bytes_and_not_its_letters(store: IDataStore) -> None:
    records = [refusal(n, json.dumps({"id": n, "note": "😀" * 500}, ensure_ascii=False)) for n in range(3)]
    await load(store, 1, "r1", replace(refusing(0, 1, 2), refused=pa.Table.from_pylist(records, REFUSED)))
    size = len(str(records[0]["record"]).encode())
    assert size > 2_000
    for most, count in ((3 * size - 1, 2), (3 * size, 3), (1_500, 1)):
        rows = await store.refused_rows(MINE, after=None, limit=4, most_bytes=most)
        assert [row.record for row in rows] == [record["record"] for record in records[:count]]


@pytest.mark.clause("IDataStore", 28)
@pytest.mark.invariant("D9")
async def test_replay_marks_what_it_lands_in_the_same_transaction_and_leaves_the_rest(store: IDataStore) -> None:
    await load(store, 1, "r1", refusing(1, 2, 3, accepted=(9,)), refusing(4, 5))

    read = await replayed(store, 1, again=(1,))

    assert [pa.table(batch.data).column("id").to_pylist() for batch in read] == [[1, 2], [3, 4], [5]]
    assert await ids(store) == [1, 3, 5, 9]
    assert await states(store) == [(1, "repaired"), (2, "open"), (3, "repaired"), (4, "open"), (5, "repaired")]
    settled = {row.settled_by for row in await store.refused_rows(MINE, after=None, limit=9)}
    assert settled == {REPLAY_RUN, None}
    await replayed(store, 2)
    assert await ids(store) == [1, 2, 3, 4, 5, 9]


@pytest.mark.clause("IDataStore", 27)
@pytest.mark.invariant("D9")
async def test_columns_of_refused_rows_are_known_whatever_became_of_others_of_their_batch(store: IDataStore) -> None:
    shape = refusal(0)["columns"]
    await load(store, 1, "r1", refusing(1, 2, 3, 4), refusing(5, 6))
    assert await store.refused_shapes(OPEN) == [shape]

    await replayed(store, 2, again=(1,))

    assert await states(store, OPEN) == [(2, "open"), (4, "open"), (6, "open")]
    assert await store.refused_shapes(OPEN) == [shape]
    assert await store.refused_shapes(replace(MINE, state=RefusedState.WAITING)) == []
    assert [pa.table(batch.data).to_pydict()["id"] for batch in await replayed(store, 3)] == [[2, 4], [6]]


@pytest.mark.clause("IDataStore", 28)
@pytest.mark.invariant("D9", "D3", "D6")
@pytest.mark.parametrize("left", [1, 0], ids=["some", "all"])
@pytest.mark.parametrize("mode", [Mode.APPEND, Mode.MERGE], ids=str)
async def test_of_a_batch_that_is_replayed_only_what_no_other_run_has_settled_lands(
    store: IDataStore, mode: Mode, left: int
) -> None:
    changes = {"mode": mode, "key": ("id",) if mode is Mode.MERGE else ()}
    await load(store, 1, "r1", refusing(1, 2, 3))
    source = SourceSpec(refused=OPEN, key=PLACE)
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
        [stale] = [batch async for batch in reader.batches(None)]
    await replayed(store, 1, again=(1,) if left else (), **changes)
    assert await ids(store) == [1, 3] if left else [1, 2, 3]

    planned = replace(read_set(name="late"), plan=plan)
    target = replaying(planned, run_id=REPLAY_RUN.replace("f", "e"), **changes)
    async with store.owner(REPLAYS, TABLE, 2) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
    await land(store, 2, planned, target, stale, Counts(), (), 1)

    assert await ids(store) == [1, 2, 3]
    assert await states(store) == [(1, "repaired"), (2, "repaired"), (3, "repaired")]
    by = [row.settled_by for row in await store.refused_rows(MINE, after=None, limit=9)]
    assert by == [REPLAY_RUN, target.run_id if left else REPLAY_RUN, REPLAY_RUN]
    lane = await store.lane_state(REPLAYS, TABLE)
    assert (lane.seq, lane.counts) == (1, Counts(read=left, used=left, produced=left))


@pytest.mark.clause("IDataStore", 27)
@pytest.mark.invariant("D9")
async def test_rows_of_a_run_that_is_never_published_are_abandoned(store: IDataStore) -> None:
    planned = read_set(name="r1")
    await opened(store, 1, planned)
    await commit_batch(store, 1, planned, 1, refusing(1))

    async with store.owner(LANE, TABLE, 2) as owner:
        await owner.take_over()
        await owner.reset(None)

    assert await states(store) == [(1, "abandoned")]


@pytest.mark.clause("IDataStore", 27)
async def test_rows_that_a_later_run_has_read_again_are_superseded(store: IDataStore) -> None:
    await load(store, 1, "r1", refusing(1, accepted=(2,)))
    planned = read_set(name="r2", shadow=True)

    await opened(store, 2, planned, mode=Mode.REPLACE)
    await commit_batch(store, 2, planned, 1, refusing(3), is_last=True, mode=Mode.REPLACE)
    await published(store, 2, planned, mode=Mode.REPLACE)

    assert await states(store) == [(1, "superseded"), (3, "open")]


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 28)
async def test_replayed_row_does_not_take_the_place_of_one_that_was_read_later(store: IDataStore) -> None:
    merging = {"mode": Mode.MERGE, "key": ("id",), "newest_by": "note", "metadata_columns": True}
    await load(store, 1, "r1", refusing(1, 2, 3))
    there = {"id": pa.array([1, 2, 3], pa.int64()), "note": pa.array(["zzz", "a", "refused"], pa.string())}
    await store.write(TABLE, [pa.table(there)])

    await replayed(store, 1, **merging)

    assert [(row["id"], row["note"]) for row in await content(store)] == [(1, "zzz"), (2, "refused"), (3, "refused")]
    assert [row[RUN_ID] is not None for row in await content(store)] == [False, True, False]
    assert [state for _, state in await states(store)] == ["repaired"] * 3


KINDS = {
    "bool": [True, None],
    "int64": [-(2**63), 2**63 - 1, None],
    "uint64": [2**64 - 1, None],
    "float64": [1.5, float("inf"), float("-inf"), None, 1e-300],
    "float32": [1.5, None],
    "decimal(38,10)": [Decimal("12345678901234567890.0000000001"), Decimal("0E-10"), None],
    "string": ['quote " and \\ and \x01 and é', "", None],
    "binary": [b"\x00\xff", b"", None],
    "date": [date(1, 1, 1), date(9999, 12, 31), None],
    "time": [time(23, 59, 59, 999999), None],
    "timestamp": [datetime.fromisoformat("2026-01-02T03:04:05.678901"), None],
    "timestamptz": [datetime(1969, 1, 2, 3, 4, 5, 1, tzinfo=UTC), None],
    "interval": [pa.MonthDayNano([1, -2, 3]), None],
    "uuid": ["01890000-0000-7000-8000-000000000000", None],
    "list<int64>": [[1, None, 3], [], None],
    "list<timestamptz>": [[datetime(2026, 1, 1, tzinfo=UTC)], None],
    "list<binary>": [[b"\x01"], None],
}


@pytest.mark.parametrize("kind", KINDS)
def test_record_is_read_back_as_it_was_written(kind: str) -> None:
    rows = pa.table({"a": pa.array(KINDS[kind], arrow_type(kind))})

    texts = encoded(rows)

    assert decoded(texts, [Column("a", kind)], is_text=False).equals(rows)
    assert all(json.loads(text) is not None and "NaN" not in text.replace('"NaN"', "") for text in texts)


def test_nan_is_read_back_too() -> None:
    [text] = encoded(pa.table({"a": pa.array([float("nan")])}))

    assert text == '{"a": "NaN"}'
    assert str(decoded([text], [Column("a", "float64")], is_text=False).column("a")[0]) == "nan"


def test_records_of_several_shapes_have_all_their_columns_and_one_type_each() -> None:
    first, second = (
        shape_of(COLUMNS, is_text=False),
        shape_of([Column("id", "int64"), Column("far", "bool")], is_text=False),
    )

    columns, is_text = merged_shape([first, second])

    assert [column.name for column in columns] == ["id", "note", "far"]
    assert not is_text
    assert decoded(['{"id": 1, "far": true}'], columns, is_text=False).to_pylist() == [
        {"id": 1, "note": None, "far": True}
    ]
    for other in (shape_of([Column("id", "string")], is_text=False), shape_of([Column("id", "int64")], is_text=True)):
        with pytest.raises(InvalidInputError) as caught:
            merged_shape([first, other])
        assert caught.value.code == "quarantine.types"


@pytest.mark.clause("IDataStore", 27)
async def test_the_latest_read_set_that_refused_rows_of_a_pipeline_is_known(store: IDataStore) -> None:
    assert await store.latest_read_set(MINE) is None
    await load(store, 1, "r2", refusing(1))
    await load(store, 2, "r1", refusing(2))
    await load(store, 3, "r3", refusing(accepted=(3,)))

    assert await store.latest_read_set(MINE) == "r2"
    assert await store.latest_read_set(replace(MINE, pipeline="other")) is None
    assert await store.latest_read_set(replace(MINE, organization="other")) is None
