"""Cursors on every store: ends and lookbacks within the type, and watermarks as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.pipelines.table import TableName
from domain.ports.data_store import IDataStore
from tests.ports.backends import Backend


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
