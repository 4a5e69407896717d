"""Cursors on every store: ends and lookbacks within the type, and watermarks as people write them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.ports.data_store import IDataStore
from domain.stores.table import TableName
from infrastructure.stores.cursor_axis import Axis, micros
from infrastructure.stores.cursor_ends import Beginning, own_end
from infrastructure.stores.memory.content import append_rows
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.write_lock import WriteLock
from tests.ports.backends import Backend
from tests.ports.cursor_reading import Reading


@pytest.mark.clause("IDataStore", 24)
@pytest.mark.parametrize("kind", ["int16", "int32", "int64"])
async def test_integer_cursor_stays_within_its_type(kind: str, store: IDataStore, backend: Backend) -> None:
    """A read of nothing, a lookback and a hold back begin and end within the type, so that they can be bound."""
    bits = int(kind.removeprefix("int"))
    least, greatest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    table = TableName("s")

    async def written(*values: int) -> None:
        await store.write(table, [pa.table({"id": pa.array(values, pa.type_for_alias(kind))})])

    async def read(lo: str | None) -> tuple[list[int], str | None]:
        plan = await store.plan(source, lo=lo, limit=None)
        async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            return [n async for b in reader.batches(None) for n in pa.table(b.data).column("id").to_pylist()], plan.hi

    source = SourceSpec(table=table, cursor=CursorSpec("id", hold_back=2, lookback=5), key=("id",))
    await written()
    assert await read(None) == ([], str(least))
    assert await read(str(least)) == ([], str(least))
    await written(least)
    assert await read(str(least)) == ([], str(least))
    await written(least + 1, least + 2, greatest - 1)
    assert await read(str(least + 1)) == ([least, least + 1, least + 2], str(greatest - 2))

    for wrong in (str(greatest + 1), "soon", "1e3", "\u0661"):
        with pytest.raises(InvalidInputError) as refused:
            await read(wrong)
        assert refused.value.code == "cursor.watermark"
    await written(greatest)
    with pytest.raises(InvalidInputError) as refused:
        await read(str(least))
    assert refused.value.code == "cursor.at_maximum"


@pytest.mark.clause("IDataStore", 24)
async def test_watermark_of_a_time_is_a_moment_however_it_is_written(store: IDataStore, backend: Backend) -> None:
    table = TableName("s")
    past = datetime.now(UTC) - timedelta(seconds=60)
    await store.write(table, [pa.table({"at": pa.array([past], pa.timestamp("us", "UTC"))})])

    async def read(lo: str, lookback: timedelta | None = None) -> int:
        source = SourceSpec(table=table, cursor=CursorSpec("at", lookback=lookback), key=("at",))
        plan = await store.plan(source, lo=lo, limit=None)
        async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            return sum([pa.table(b.data).num_rows async for b in reader.batches(None)])

    before = past - timedelta(seconds=60)
    elsewhere = before.astimezone(timezone(timedelta(hours=9)))
    for written in (before.isoformat(), f"{before:%Y-%m-%dT%H:%M:%SZ}", elsewhere.isoformat(sep=" ")):
        assert await read(written) == 1
    assert await read((past + timedelta(seconds=1)).isoformat()) == 0
    assert await read("0001-01-02 00:00:00+00:00", timedelta(days=900)) == 1
    for wrong in ("yesterday", "infinity", "2026-13-01", "0001-01-01 00:00:00+09:00"):
        with pytest.raises(InvalidInputError) as refused:
            await read(wrong)
        assert refused.value.code == "cursor.watermark"


@pytest.mark.clause("IDataStore", 13)
async def test_limited_read_ends_in_the_order_of_the_cursor_whatever_its_name(
    store: IDataStore, backend: Backend
) -> None:
    await store.write(TableName("s"), [pa.table({"bound": pa.array([10, 2, 9], pa.int64())})])
    source = SourceSpec(table=TableName("s"), cursor=CursorSpec("bound"), key=("bound",))

    plan = await store.plan(source, lo=None, limit=1)

    assert plan.hi == "9"


@pytest.mark.clause("IDataStore", 13)
@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.int64()], ids=str)
async def test_a_read_ends_where_it_is_told_to_or_where_all_can_be_seen(kind: pa.DataType, store: IDataStore) -> None:
    values = pa.array([n * 1_000_000 for n in range(8, 13)], pa.int64()).cast(kind)
    await store.write(TableName("s"), [pa.table({"id": pa.array(range(8, 13), pa.int64()), "at": values})])
    source = SourceSpec(table=TableName("s"), cursor=CursorSpec("at"), key=("id",))

    def at(second: int) -> str:
        return f"{second}000000" if kind == pa.int64() else f"1970-01-01 00:00:{second:02}"

    async def read(lo: str | None, hi: str | None, limit: int | None = None) -> tuple[list[int], bool]:
        plan = await store.plan(source, lo=lo, hi=hi, limit=limit)
        async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            batches = [pa.table(batch.data).column("id").to_pylist() async for batch in reader.batches(None)]
        assert plan.end is not None
        return [number for batch in batches for number in batch], plan.end.complete_as_of is not None

    assert await read(None, None) == ([8, 9, 10, 11, 12], True)
    assert await read(None, at(10)) == ([8, 9], False)  # As text, 9 is greater than 10.
    assert await read(at(9), at(12)) == ([9, 10, 11], False)
    assert await read(at(9), at(50)) == ([9, 10, 11, 12], True)
    assert await read(at(9), at(12), limit=2) == ([9, 10], False)
    assert await read(at(11), at(9)) == ([], False)


@pytest.mark.clause("IDataStore", 30)
@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC"), pa.timestamp("us"), pa.int64()], ids=str)
async def test_a_read_ends_just_above_the_greatest_value_whatever_the_clock_says(
    kind: pa.DataType, store: IDataStore, backend: Backend
) -> None:
    """The watermark is of what was seen; how far it was complete is told beside it, and moves on while a table is
    quiet.
    """
    values = pa.array([10_000_001, 20_000_003], pa.int64()).cast(kind)
    await store.write(TableName("s"), [pa.table({"id": pa.array([1, 2], pa.int64()), "at": values})])
    reading = Reading(store, "s", CursorSpec("at"))

    assert await reading.goes_on() == [1, 2]
    watermark, complete = reading.watermark or "", reading.end.complete_as_of or ""
    assert await reading.goes_on() == []

    assert watermark.removesuffix("+00:00") == ("20000004" if kind == pa.int64() else "1970-01-01 00:00:20.000004")
    assert reading.watermark == watermark
    assert (
        (reading.end.complete_as_of or "") > complete > f"{datetime.now(UTC) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%S}"
    )
    assert reading.end.sentences == ()


@pytest.mark.clause("IDataStore", 30)
async def test_an_empty_table_moves_no_watermark_past_rows_to_come(store: IDataStore, backend: Backend) -> None:
    table, kind = TableName("s"), pa.timestamp("us", "UTC")

    async def write(key: int, at: datetime) -> None:
        await store.write(table, [pa.table({"id": pa.array([key], pa.int64()), "at": pa.array([at], kind)})])

    await store.write(table, [pa.table({"id": pa.array([], pa.int64()), "at": pa.array([], kind)})])
    reading = Reading(store, "s", CursorSpec("at"))
    assert await reading.goes_on() == []

    await write(1, datetime(2020, 1, 1, tzinfo=UTC))
    assert await reading.goes_on() == [1]
    await write(2, datetime.now(UTC) + timedelta(days=1))  # Of a clock that is ahead: it is its turn tomorrow.
    assert await reading.goes_on() == []


@pytest.mark.clause("IDataStore", 30)
async def test_a_read_of_a_store_of_ours_stops_where_its_open_writer_began() -> None:
    """A writer stamps its rows after it has taken the write lock, and shows them when it gives it back."""
    lock, axis = WriteLock(), Axis.of(CursorSpec("at"), "timestamptz")
    numbers = Axis.of(CursorSpec("n"), "int64")
    lock.acquire()
    stamped = micros(datetime.now(UTC))

    during = await own_end(Beginning(axis, stamped, None, None, waits=False), lock.held_since)
    counting = await own_end(Beginning(numbers, 7, None, None, waits=False), lock.held_since)
    lock.release()
    after = await own_end(Beginning(axis, stamped, during.hi, during.why), lock.held_since)

    assert during.hi <= axis.text(stamped)
    assert "a writer of this process" in during.why.held_back[0]
    assert counting.hi == numbers.text(-(2**63))
    assert after.hi == axis.text(stamped + 1)
    assert after.why.sentences == ()


@pytest.mark.clause("IDataStore", 30)
async def test_a_transaction_in_memory_holds_a_read_back() -> None:
    store, moment = InMemoryDataStore(), pa.timestamp("us", "UTC")
    await store.open()
    reading = Reading(store, "s", CursorSpec("at"))

    def rows(*keys: int) -> pa.Table:
        return pa.table({"id": pa.array(keys, pa.int64()), "at": pa.array([datetime.now(UTC)] * len(keys), moment)})

    await store.write(TableName("s"), [rows(1)])
    async with store.transaction() as content:
        early = rows(2)
        plan = await store.plan(reading.source, lo=None, limit=None, waits=False)
        append_rows(content, TableName("s"), early)

    assert plan.end is not None
    assert plan.end.held_back == ()  # What was seen is older than the transaction.
    assert await reading.goes_on() == [1, 2]


async def test_a_clock_that_was_put_back_is_told() -> None:
    axis, greatest = Axis.of(CursorSpec("at"), "timestamptz"), micros(datetime.now(UTC) - timedelta(hours=1))
    lock = WriteLock()
    before = await own_end(Beginning(axis, greatest, None, None), lock.held_since)
    assert before.why.horizon is not None
    ahead = replace(before.why.horizon, at=before.why.horizon.at + 3_600_000_000)

    after = await own_end(Beginning(axis, greatest, before.hi, replace(before.why, horizon=ahead)), lock.held_since)

    assert "put back" in after.why.unknown[0]
    assert (await own_end(Beginning(axis, greatest, before.hi, before.why), lock.held_since)).why.unknown == ()
