"""One suite for every IDataStore; each test proves a numbered clause on every backend."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import (
    ConflictError,
    FencedError,
    InvalidInputError,
    QualityRejectedError,
    SchemaMismatchError,
    UnavailableError,
)
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import CursorSpec, Mode, Partitions, SourceSpec
from domain.ports.data_store import IDataStore, StreamSelection, passage_of
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Judgement
from domain.rule_results import RuleResult
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import Backend, address_of
from tests.ports.loading import (
    COLUMNS,
    LANE,
    TABLE,
    batch,
    commit,
    content,
    held_by,
    holds,
    ids,
    opened,
    published,
    read_ids,
    read_set,
    replaced,
    rows,
    target,
    token_of,
)

REJECTED = Judgement((RuleResult("unique(id)", "run", "fail", "fail", 1, 1),))


@pytest.mark.clause("IDataStore", 1)
async def test_values_with_quotes_are_values(store: IDataStore) -> None:
    names = ["a'; drop table t; --", 'b" or 1=1', "c\\"]
    await store.write(TableName("t"), [pa.table({"id": [1, 2, 3], "name": names})])
    source = SourceSpec(table=TableName("t"), key=("name",))

    assert await read_ids(store, source, (names[0],), batch_rows=10) == [[2, 3]]
    assert await read_ids(store, source, None, batch_rows=10) == [[1, 2, 3]]


@pytest.mark.clause("IDataStore", 1)
async def test_query_parameters_are_bound(backend: Backend, store: IDataStore) -> None:
    if not store.capabilities.has_queries:
        with pytest.raises(InvalidInputError):
            await store.plan(SourceSpec(query="select 1"), lo=None, limit=None)
        return
    await store.write(TABLE, [rows(1, 2, 3)])
    for parameter, expected in (("note 2", [[2]]), ("' or true --", [])):
        source = SourceSpec(
            query="select * from orders where note = :note and id > :id",
            parameters={"note": parameter, "id": 0},
            key=("id",),
        )
        assert await read_ids(store, source, None, batch_rows=10) == expected


@pytest.mark.clause("IDataStore", 2)
async def test_replayed_batch_leaves_one_copy(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1, 2)))

    with pytest.raises(FencedError):
        await commit(store, 1, planned, 1, batch(rows(1, 2)))

    assert await ids(store) == [1, 2]


@pytest.mark.clause("IDataStore", 3)
@pytest.mark.invariant("R3")
async def test_stale_fence_changes_nothing(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    async with store.owner(LANE, TABLE, 2) as newer:
        await newer.take_over()

    with pytest.raises(FencedError):
        await commit(store, 1, planned, 1, batch(rows(1)))
    with pytest.raises(FencedError):
        await published(store, 1, planned)
    assert await ids(store) == []

    await commit(store, 2, planned, 1, batch(rows(1)))
    assert await ids(store) == [1]


@pytest.mark.clause("IDataStore", 4)
@pytest.mark.invariant("D3")
async def test_failed_commit_leaves_neither_rows_nor_checkpoint(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    wrong = pa.table({"id": ["no number"], "note": ["x"]})

    with pytest.raises(SchemaMismatchError):
        await commit(store, 1, planned, 1, batch(wrong))

    assert await ids(store) == []
    assert (await store.lane_state(LANE, TABLE)).seq == 0
    await commit(store, 1, planned, 1, batch(rows(1)))
    assert await ids(store) == [1]
    assert (await store.lane_state(LANE, TABLE)).seq == 1


@pytest.mark.clause("IDataStore", 5)
@pytest.mark.parametrize(
    ("wrong", "step", "code"),
    [
        ({"port": 1}, "network", "store.unavailable"),
        ({"sslmode": "require"}, "tls", "store.tls"),
        ({"host": "no-such-host.invalid"}, "name", "store.host_unknown"),
        ({"user": "nobody"}, "sign_in", "store.sign_in"),
        ({"database": "nothing"}, "sign_in", "store.database_missing"),
    ],
)
async def test_connection_that_fails_says_at_which_step(
    wrong: dict[str, Any], step: str, code: str, postgres_database: str
) -> None:
    store = PostgresDataStore(replace(address_of(postgres_database), **wrong))

    health = await store.health_check()
    with pytest.raises(UnavailableError) as caught:
        await store.open()

    assert caught.value.retryable == (code == "store.unavailable")  # The rest stays wrong until somebody changes it.
    assert (health.is_healthy, health.step, caught.value.code) == (False, step, code)


@pytest.mark.clause("IDataStore", 5)
async def test_unreachable_store_is_unavailable_and_retryable(backend: Backend, tmp_path: Path) -> None:
    broken = backend.broken(tmp_path)

    with pytest.raises(UnavailableError) as caught:
        await broken.write(TABLE, [rows(1)])

    assert caught.value.retryable
    health = await broken.health_check()
    assert not health.is_healthy
    assert health.step
    assert health.detail


@pytest.mark.clause("IDataStore", 6)
async def test_take_over_raises_the_fence_and_reads_what_was_committed(store: IDataStore) -> None:
    planned = read_set(streams=2)
    await opened(store, 3, planned)
    await commit(store, 3, planned, 1, batch(rows(1, 2)), stream="1")

    async with store.owner(LANE, TABLE, 5) as owner:
        state = await owner.take_over()

    assert state.fence == 5
    assert [(s.stream, s.seq, s.position, s.counts.read) for s in state.streams] == [
        ("0", 0, None, 0),
        ("1", 1, ("1",), 2),
    ]
    async with store.owner(LANE, TABLE, 4) as late:
        with pytest.raises(FencedError) as caught:
            await late.take_over()
    assert caught.value.fence == 5


@pytest.mark.clause("IDataStore", 7)
async def test_opening_a_read_set_starts_from_empty(store: IDataStore) -> None:
    first = read_set(shadow=True)
    await opened(store, 1, first)
    await commit(store, 1, first, 1, batch(rows(1, 2), refused=1), is_last=True)

    state = await opened(store, 2, first)

    assert [(s.seq, s.position, s.state) for s in state.streams] == [(0, None, "loading")]
    await commit(store, 2, first, 1, batch(rows(7)), is_last=True)
    await published(store, 2, first)
    assert await ids(store) == [7]


@pytest.mark.clause("IDataStore", 8)
@pytest.mark.invariant("D2", "D7", "R5")
async def test_publishing_is_all_or_nothing_and_happens_once(store: IDataStore) -> None:
    planned = read_set(shadow=True, hi="100")
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1, 2)))
    with pytest.raises(ConflictError):
        await published(store, 1, planned)  # The stream is not at its end.
    await commit(store, 1, planned, 2, batch(rows(3)), is_last=True)
    assert await ids(store) == []

    with pytest.raises(QualityRejectedError):
        await published(store, 1, planned, REJECTED)
    assert await ids(store) == []
    assert (await store.lane_state(LANE, TABLE)).watermark is None

    await published(store, 1, planned)
    assert await ids(store) == [1, 2, 3]
    assert (await store.lane_state(LANE, TABLE)).watermark == "100"
    with pytest.raises(FencedError):
        await published(store, 1, planned)
    assert await ids(store) == [1, 2, 3]


@pytest.mark.clause("IDataStore", 8)
@pytest.mark.invariant("D7")
@pytest.mark.parametrize("mode", [Mode.APPEND, Mode.REPLACE])
async def test_staged_run_that_publishes_nothing_leaves_no_table(store: IDataStore, mode: Mode) -> None:
    planned = read_set(shadow=True)
    await opened(store, 1, planned, mode=mode)
    await commit(store, 1, planned, 1, batch(rows(1, 2)), is_last=True, mode=mode)
    with pytest.raises(QualityRejectedError):
        await published(store, 1, planned, REJECTED, mode=mode)
    assert await store.describe(TABLE) is None

    await published(store, 1, planned, mode=mode)

    assert await ids(store) == [1, 2]


@pytest.mark.clause("IDataStore", 8)
@pytest.mark.invariant("D2")
async def test_replace_swaps_the_whole_table(store: IDataStore) -> None:
    await store.write(TABLE, [rows(8, 9)])
    planned = read_set(shadow=True)
    await opened(store, 1, planned, mode=Mode.REPLACE)
    await commit(store, 1, planned, 1, batch(rows(1)), is_last=True, mode=Mode.REPLACE)
    assert await ids(store) == [8, 9]

    await published(store, 1, planned, mode=Mode.REPLACE)

    assert await ids(store) == [1]


@pytest.mark.clause("IDataStore", 9)
async def test_sealed_read_set_takes_no_batch_until_it_is_taken_over(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1)))
    async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
        await owner.seal()

    with pytest.raises(FencedError):
        await commit(store, 1, planned, 2, batch(rows(2)))
    assert await ids(store) == [1]

    async with store.owner(LANE, TABLE, 2) as owner:
        await owner.take_over()
    await commit(store, 2, planned, 2, batch(rows(2)))
    assert await ids(store) == [1, 2]


@pytest.mark.clause("IDataStore", 10)
async def test_reading_goes_on_strictly_after_a_position(store: IDataStore) -> None:
    data = pa.table({"id": [5, 3, 1, 4, 2], "at": pa.array([2, 1, 1, 2, 1], pa.int64())})
    await store.write(TableName("s"), [data])
    source = SourceSpec(table=TableName("s"), cursor=CursorSpec("at"), key=("id",))

    assert await read_ids(store, source, None, batch_rows=2) == [[1, 2], [3, 4], [5]]
    assert await read_ids(store, source, ("1", "2"), batch_rows=2) == [[3, 4], [5]]
    assert await read_ids(store, source, ("2", "5"), batch_rows=2) == []


@pytest.mark.clause("IDataStore", 10)
async def test_positions_of_every_key_type_read_back(store: IDataStore) -> None:
    data = pa.table(
        {
            "id": [1, 2, 3],
            "at": pa.array([1, 1_000_001, 2_000_001], pa.timestamp("us", "UTC")),
            "naive": pa.array([1, 1_000_001, 2_000_001], pa.timestamp("us")),
            "day": pa.array([1, 2, 3], pa.date32()),
            "amount": pa.array([Decimal("0.01"), Decimal("1.50"), Decimal("2.00")], pa.decimal128(12, 2)),
            "weight": [0.1, 0.2, 1e300],
            "text": ["a", "b'c", "d"],
        }
    )
    data = await held_by(store, data)
    await store.write(TableName("s"), [data])
    for name in data.column_names:
        source = SourceSpec(table=TableName("s"), key=(name,))
        plan = await store.plan(source, lo=None, limit=None)
        async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
            async with aclosing(reader.batches(None, limit=2)) as batches:  # Else it would end in another's session.
                first = await anext(batches)
        assert first.position is not None
        assert await read_ids(store, source, first.position, batch_rows=10) == [[3]], name


@pytest.mark.clause("IDataStore", 11)
@pytest.mark.invariant("D4")
async def test_replaced_table_takes_no_other_writer(store: IDataStore) -> None:
    other = Lane("default", "other")
    planned = read_set(shadow=True)
    await opened(store, 1, planned, mode=Mode.REPLACE)

    with pytest.raises(ConflictError) as caught:
        await opened(store, 1, read_set(name="r2"), lane=other)

    assert caught.value.code == "destination.owned"
    async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
        await owner.release()
    await opened(store, 1, read_set(name="r2"), lane=other)
    with pytest.raises(ConflictError):
        await opened(store, 2, read_set(shadow=True, name="r3"), mode=Mode.REPLACE)


@pytest.mark.clause("IDataStore", 11)
@pytest.mark.invariant("D4")
@pytest.mark.parametrize("spelling", ["Orders", "ORDERS"])
async def test_a_table_in_another_spelling_has_the_owner_of_the_table_that_it_is(
    spelling: str, store: IDataStore, backend: Backend
) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1, 2)), is_last=True)

    if store.capabilities.folds_case:
        with pytest.raises(ConflictError) as caught:
            await replaced(store, TableName(spelling), rows(7))
        assert (caught.value.code, "orders" in str(caught.value)) == ("destination.owned", True)
    else:
        await replaced(store, TableName(spelling), rows(7))
    assert await ids(store) == [1, 2]
    async with store.owner(LANE, TableName(spelling), 1, token=await token_of(store)) as owner:
        await owner.release()
    if store.capabilities.folds_case:
        await replaced(store, TableName(spelling), rows(7))


@pytest.mark.clause("IDataStore", 20)
async def test_discarded_rehearsal_leaves_nothing_and_spares_what_others_write(store: IDataStore) -> None:
    planned = read_set(shadow=True)
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1, 2), refused=1), is_last=True)
    await published(store, 1, planned)
    assert await ids(store) == [1, 2]
    other = Lane("default", "other")
    await opened(store, 1, read_set(name="r2"), lane=other)

    async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
        with pytest.raises(ConflictError):
            await owner.discard()
    assert await ids(store) == [1, 2]
    async with store.owner(other, TABLE, 1, token=await token_of(store, other)) as owner:
        await owner.release()
    async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
        await owner.discard()

    assert await store.describe(TABLE) is None
    assert await store.tables() == []
    assert (await store.lane_state(LANE, TABLE)).fence == 0


@pytest.mark.clause("IDataStore", 12)
@pytest.mark.parametrize(
    "query",
    [
        "delete from orders",
        "select 1; drop table orders",
        "with gone as (delete from orders returning *) select * from gone",
        "/**/insert into orders values (9, 'x')",
        "select * into copied from orders",
        "select * from orders for update",
        "select * from _headrace_checkpoint",
    ],
)
@pytest.mark.line("8", "9")
async def test_query_that_does_more_than_read_is_refused(store: IDataStore, query: str) -> None:
    await store.write(TABLE, [rows(1)])

    with pytest.raises(InvalidInputError):
        await store.plan(SourceSpec(query=query, key=("id",)), lo=None, limit=None)

    assert await ids(store) == [1]


@pytest.mark.line("14")
@pytest.mark.clause("IDataStore", 12)
async def test_query_that_ends_in_a_comment_cannot_swallow_what_follows(backend: Backend, store: IDataStore) -> None:
    await store.write(TABLE, [rows(1, 2, 3)])
    source = SourceSpec(query="select * from orders --", key=("id",))
    if not store.capabilities.has_queries:
        with pytest.raises(InvalidInputError):
            await store.plan(source, lo=None, limit=None)
        return

    assert await read_ids(store, source, ("1",), batch_rows=10) == [[2, 3]]
    with pytest.raises(InvalidInputError) as caught:
        await store.plan(SourceSpec(query="select * frm orders"), lo=None, limit=None)
    assert caught.value.code == "query.unparsable"


@pytest.mark.clause("IDataStore", 34)
async def test_query_that_gives_two_columns_one_name_is_refused(store: IDataStore) -> None:
    await store.write(TABLE, [rows(1, 2, 3)])
    doubled = SourceSpec(query="select id, note, 'x' as note from orders", key=("id",))
    with pytest.raises(InvalidInputError) as caught:
        await store.plan(doubled, lo=None, limit=None)
    if not store.capabilities.has_queries:
        return

    assert caught.value.code == "query.duplicate_column"
    told = await store.plan(SourceSpec(query="select id, 'x' as note from orders", key=("id",)), lo=None, limit=None)
    assert [name for name, _ in told.columns] == ["id", "note"]


@pytest.mark.clause("IDataStore", 13)
async def test_planning_refuses_null_cursors_and_ends_before_hi(store: IDataStore) -> None:
    await store.write(TableName("s"), [pa.table({"id": [1, 2], "at": pa.array([1, None], pa.int64())})])
    source = SourceSpec(table=TableName("s"), cursor=CursorSpec("at", hold_back=2), key=("id",))
    with pytest.raises(InvalidInputError) as caught:
        await store.plan(source, lo=None, limit=None)
    assert caught.value.code == "cursor.null"

    await store.write(TableName("s2"), [pa.table({"id": [1, 2, 3, 4], "at": pa.array([1, 2, 3, 4], pa.int64())})])
    held = SourceSpec(table=TableName("s2"), cursor=CursorSpec("at", hold_back=2), key=("id",))
    plan = await store.plan(held, lo=None, limit=None)
    assert plan.hi == "3"
    assert await store.count(held, plan) == 2
    assert await read_ids(store, held, None, batch_rows=10) == [[1, 2]]
    limited = await store.plan(SourceSpec(table=TableName("s2"), cursor=CursorSpec("at"), key=("id",)), lo="2", limit=1)
    assert (limited.lo, limited.hi) == ("2", "3")


@pytest.mark.clause("IDataStore", 14)
@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (pa.array([1], pa.int64()), pa.array([1.5], pa.float64())),
        (pa.array([1], pa.int32()), pa.array([2**40], pa.int64())),
        (pa.array([1.0], pa.float64()), pa.array([2**60 + 1], pa.int64())),
        (pa.array([1], pa.int64()), pa.array(["1"], pa.string())),
        (pa.array([0], pa.timestamp("us", "UTC")), pa.array([5], pa.int64())),
        (pa.array([0], pa.date32()), pa.array([5], pa.int32())),
        (pa.array([Decimal("1.00")], pa.decimal128(12, 2)), pa.array([1.005], pa.float64())),
        (pa.array([Decimal("1.00")], pa.decimal128(12, 2)), pa.array([Decimal("1.005")], pa.decimal128(12, 3))),
    ],
)
async def test_value_that_would_change_is_refused(store: IDataStore, stored: pa.Array, given: pa.Array) -> None:
    if not await holds(store, stored.type):
        return
    await store.write(TableName("typed"), [pa.table({"v": stored})])
    before = await content(store, TableName("typed"))

    with pytest.raises(SchemaMismatchError):
        await store.write(TableName("typed"), [pa.table({"v": given})])

    assert await content(store, TableName("typed")) == before
    await store.write(TableName("typed"), [pa.table({"v": stored})])
    assert len(await content(store, TableName("typed"))) == 2


@pytest.mark.clause("IDataStore", 15)
async def test_description_names_columns_types_and_key(backend: Backend, store: IDataStore) -> None:
    assert await store.describe(TableName("absent")) is None
    data = pa.table(
        {
            "id": [1],
            "amount": pa.array([Decimal("1.00")], pa.decimal128(12, 2)),
            "at": pa.array([0], pa.timestamp("us", "UTC")),
        }
    )
    data = await held_by(store, data)
    await store.write(TableName("t"), [data])

    described = await store.describe(TableName("t"))

    assert described is not None
    kinds = {"id": "int64", "amount": "decimal(12,2)", "at": "timestamptz"}
    assert [(c.name, c.type) for c in described.columns] == [(name, kinds[name]) for name in data.column_names]
    assert TableName("t") in await store.tables()
    assert described.column("at") == Column("at", "timestamptz")


@pytest.mark.clause("IDataStore", 16)
async def test_closed_store_can_be_opened_again(store: IDataStore) -> None:
    await store.close()
    await store.close()
    await store.open()

    await store.write(TABLE, [rows(1)])

    assert await ids(store) == [1]


@pytest.mark.invariant("D6")
async def test_reset_forgets_the_open_read_set_and_moves_the_watermark(store: IDataStore) -> None:
    planned = read_set(shadow=True)
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1, 2), refused=1))
    assert (await store.lane_state(LANE, TABLE)).counts.quarantined == 1

    async with store.owner(LANE, TABLE, 2) as owner:
        await owner.take_over()
        await owner.reset("41")

    state = await store.lane_state(LANE, TABLE)
    assert (state.state, state.watermark, state.streams) == ("idle", "41", ())
    assert await ids(store) == []


@pytest.mark.clause("IDataStore", 2)
async def test_two_streams_advance_on_their_own(store: IDataStore) -> None:
    planned = read_set(streams=2)
    await opened(store, 1, planned)
    async with (
        store.writer(LANE, target(planned), planned.id, "0", 1, await token_of(store)) as left,
        store.writer(LANE, target(planned), planned.id, "1", 1, await token_of(store)) as right,
    ):
        for seq in (1, 2):
            data = batch(rows(seq))
            await left.commit(data, CheckpointUpdate(seq, ("1",), data.counts, Measures(), seq == 2))
            data = batch(rows(10 + seq))
            await right.commit(data, CheckpointUpdate(seq, ("1",), data.counts, Measures(), seq == 2))

    await published(store, 1, planned)

    assert await ids(store) == [1, 2, 11, 12]


@pytest.mark.clause("IDataStore", 2)
@pytest.mark.invariant("D3")
async def test_streams_that_write_at_once_take_turns(store: IDataStore) -> None:
    streams, batches = 4, 12
    planned = read_set(streams=streams)
    await opened(store, 1, planned)

    async def load(name: str, first: int) -> int:
        retries = 0
        async with store.writer(LANE, target(planned), planned.id, name, 1, await token_of(store)) as writer:
            for seq in range(1, batches + 1):
                data = batch(rows(first + seq))
                checkpoint = CheckpointUpdate(seq, (str(seq),), data.counts, Measures(), seq == batches)
                retries += (await writer.commit(data, checkpoint)).retries
        return retries

    retried = await asyncio.gather(*(load(str(number), 100 * number) for number in range(streams)))

    assert retried == [0] * streams
    await published(store, 1, planned)
    assert await ids(store) == sorted(100 * n + seq for n in range(streams) for seq in range(1, batches + 1))


@pytest.mark.clause("IDataStore", 2)
@pytest.mark.invariant("D3", "R3")
async def test_of_two_writers_of_one_batch_one_commits(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    for seq in range(1, 16):
        tried = await asyncio.gather(
            *(commit(store, 1, planned, seq, batch(rows(seq))) for _ in range(2)), return_exceptions=True
        )

        assert [type(error) for error in tried if error is not None] == [FencedError]
    assert await ids(store) == list(range(1, 16))


async def read_streams(
    store: IDataStore, source: SourceSpec, *, snapshot: str | None = None
) -> tuple[list[tuple[str | None, str | None]], list[list[int]]]:
    plan = await store.plan(source, lo=None, limit=None)
    found = []
    for stream in plan.streams:
        async with store.reader(source, plan, stream, batch_rows=3, snapshot=snapshot) as reader:
            found.append(
                [i async for part in reader.batches(None) for i in pa.table(part.data).column("id").to_pylist()]
            )
    return [(stream.lower, stream.upper) for stream in plan.streams], found


@pytest.mark.clause("IDataStore", 17)
@pytest.mark.parametrize("column", ["number", "day", "at", "naive"])
async def test_streams_cover_every_row_once(store: IDataStore, column: str) -> None:
    values = [None, -7, 0, 1, 1, 2, 50, 99, None, 100]
    data = pa.table(
        {
            "id": list(range(10)),
            "number": pa.array(values, pa.int64()),
            "day": pa.array(values, pa.date32()),
            "at": pa.array([v if v is None else v * 10**6 for v in values], pa.timestamp("us", "UTC")),
            "naive": pa.array([v if v is None else v * 10**6 for v in values], pa.timestamp("us")),
        }
    )
    await store.write(TableName("s"), [data])
    source = SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions(column, 4))

    bounds, found = await read_streams(store, source)

    assert len(bounds) == 4
    assert bounds[0][0] is None
    assert bounds[-1][1] is None
    assert all(upper == lower for (_, upper), (lower, _) in pairwise(bounds))
    assert sorted(i for ids_of_stream in found for i in ids_of_stream) == list(range(10))
    assert {0, 8} <= set(found[0])
    assert sum(bool(ids_of_stream) for ids_of_stream in found) >= 3


@pytest.mark.needs("has_far_times")
@pytest.mark.clause("IDataStore", 17)
@pytest.mark.parametrize(
    ("kind", "unit"),
    [(pa.date32(), 1), (pa.timestamp("us", "UTC"), 86_400_000_000), (pa.timestamp("us"), 86_400_000_000)],
)
async def test_partitions_by_times_that_no_calendar_counts_to_are_planned(
    kind: pa.DataType, unit: int, store: IDataStore
) -> None:
    """The years -221 and 29349: the driver has no such day."""
    days = [-800_000, 0, 10**7, None]
    number = pa.int32() if kind == pa.date32() else pa.int64()
    day = pa.array([d if d is None else d * unit for d in days], number).cast(kind)
    await store.write(TableName("s"), [pa.table({"id": [1, 2, 3, 4], "day": day})])

    plan = await store.plan(
        SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("day", 4)), lo=None, limit=None
    )

    assert len(plan.streams) == 4
    assert all(stream.upper is not None for stream in plan.streams[:-1])


@pytest.mark.clause("IDataStore", 17)
@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.bool_(), pa.float64(), pa.decimal128(9, 2), pa.time64("us"), pa.binary(), pa.month_day_nano_interval(),
    ],
    ids=str,
)  # fmt: skip
async def test_partitions_by_a_column_that_is_no_number_and_no_day_are_refused_by_its_type(
    kind: pa.DataType, store: IDataStore
) -> None:
    if not await holds(store, kind):
        return
    await store.write(TableName("s"), [pa.table({"id": [1, 2], "note": pa.nulls(2, kind)})])
    with pytest.raises(InvalidInputError) as caught:
        await store.plan(
            SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("note", 2)), lo=None, limit=None
        )
    assert (caught.value.code, "an integer, a date or a timestamp" in str(caught.value)) == ("partitions.type", True)


@pytest.mark.clause("IDataStore", 17)
async def test_partitions_need_a_key_and_a_column_that_can_be_split(store: IDataStore) -> None:
    await store.write(TableName("s"), [pa.table({"id": [1, 2], "note": ["a", "b"]})])
    for source, code in (
        (SourceSpec(table=TableName("s"), partitions=Partitions("id", 2)), "partitions.key_missing"),
        (SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("note", 2)), "partitions.type"),
        (SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("gone", 2)), "source.column_missing"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            await store.plan(source, lo=None, limit=None)
        assert caught.value.code == code
    limited = SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("id", 2))
    assert len((await store.plan(limited, lo=None, limit=1)).streams) == 1
    assert len((await store.plan(limited, lo=None, limit=None)).streams) == 2


@pytest.mark.clause("IDataStore", 10)
@pytest.mark.invariant("D1")
@pytest.mark.parametrize("way", ["decoded", "undecoded", "inside"])
async def test_resume_reads_the_columns_that_were_planned_and_says_which_are_not_there(
    way: str, store: IDataStore
) -> None:
    await store.write(TableName("s"), [rows(1, 2, 3)])
    source = SourceSpec(table=TableName("s"), key=("id",))
    is_able = {
        "decoded": True,
        "undecoded": await store.wire(source) is not None,
        "inside": await store.may_run_inside(source),
    }
    plan = await store.plan(source, lo=None, limit=None)
    planned = replace(read_set(), plan=plan)
    await opened(store, 1, planned)
    passage = passage_of(target(planned))

    async def read(plan: SourcePlan) -> list[int]:
        async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            if way == "undecoded":
                ranges = [part async for part in reader.encoded(("1",), passage)]
                found = [pa.table(await reader.decoded(part)) for part in ranges]
            else:
                found = [pa.table(part.data) async for part in reader.batches(("1",))]
        assert {tuple(part.column_names) for part in found} == {("id", "note")}
        return [i for part in found for i in part.column("id").to_pylist()]

    async def select(plan: SourcePlan) -> list[int]:
        selection = StreamSelection(source, plan, plan.streams[0], ("1",), passage)
        counts = Counts(read=2, used=2, produced=2)
        async with store.writer(LANE, target(planned), planned.id, "0", 1, await token_of(store)) as writer:
            await writer.commit_selection(selection, lambda _: CheckpointUpdate(1, None, counts, Measures(), True))
        return await ids(store)

    if not is_able[way]:
        return
    reads = select if way == "inside" else read
    for before, what in (
        ((("id", "string"), ("note", "string")), "id.*string.*int64"),
        ((*plan.columns, ("extra", "int64")), "extra.*gone"),
    ):
        with pytest.raises(SchemaMismatchError, match=what) as refused:
            await reads(replace(plan, columns=before))
        assert refused.value.code == "source.changed"
    async with store.owner(Lane("default", "another"), TableName("s"), 1) as owner:
        await owner.take_over()
        await owner.fit(replace(target(planned, columns=(*COLUMNS, Column("extra", "int64"))), table=TableName("s")))

    assert await reads(plan) == [2, 3]


@pytest.mark.clause("IDataStore", 19)
@pytest.mark.invariant("C1")
async def test_cancelled_call_interrupts_the_store(backend: Backend, store: IDataStore) -> None:
    if not store.capabilities.has_queries:
        async with asyncio.timeout(5):  # Nothing in it takes long; what waits for its turn can be cancelled.
            async with store.owner(LANE, TABLE, 1, token=await token_of(store)) as owner:
                task = asyncio.create_task(owner.take_over())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
        return
    await store.write(TABLE, [rows(*range(5000))])
    slow = SourceSpec(
        query="select count(*) as id from orders a, orders b, orders c where (a.id * b.id + c.id) % 7 = 8"
    )

    async def read() -> None:
        async for _ in store.read(slow, batch_rows=1):
            pass

    started = time.monotonic()
    task = asyncio.create_task(read())
    await asyncio.sleep(0.3)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task}, timeout=30)

    assert task.cancelled()
    assert time.monotonic() - started < 10
    assert (await store.health_check()).is_healthy
    planned = read_set()
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(9999)), is_last=True)
    assert 9999 in await ids(store)


@pytest.mark.clause("IDataStore", 11)
async def test_of_two_pipelines_that_open_at_once_one_owns_the_table(store: IDataStore) -> None:
    async def opens(name: str) -> bool:
        planned = read_set(shadow=True, name=f"r_{name}")
        try:
            await opened(store, 1, planned, mode=Mode.REPLACE, lane=Lane("default", name))
        except ConflictError:
            return False
        return True

    won = await asyncio.gather(*(opens(f"p{number}") for number in range(4)))

    assert sum(won) == 1


async def test_schema_of_duckdb_that_is_named_like_its_file_is_told_as_that(tmp_path: Path) -> None:
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "data.duckdb"))
    await store.open()
    try:
        with pytest.raises(InvalidInputError) as refused:
            await store.write(TableName("t", "data"), [pa.table({"id": [1]})])
        await store.write(TableName("t", "other"), [pa.table({"id": [1]})])
        assert await store.describe(TableName("t", "other")) is not None
    finally:
        await store.close()
    assert refused.value.code == "identifier.ambiguous"
