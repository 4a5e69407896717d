"""Small steps of a load, for the suites: rows, lanes, read sets, commits, and what the table holds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import SchemaMismatchError
from domain.loads.checkpoint import CheckpointUpdate, LaneState
from domain.loads.read_set import ReadSet, SourcePlan, Stream
from domain.pipelines.spec import Mode, SourceSpec
from domain.ports.data_store import IDataStore, JudgedBatch, Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Judgement, StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import Column, TableName
from infrastructure.tabular.arrow import columns_of, logical_type
from infrastructure.tabular.json_rows import shape_of
from infrastructure.transforms.refused import REFUSED

LANE = Lane("default", "orders")
TABLE = TableName("orders")
COLUMNS = (Column("id", "int64"), Column("note", "string"))
ACCEPTED = Judgement(())


def rows(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64()), "note": pa.array([f"note {i}" for i in ids], pa.string())})


def refusal(ordinal: int, record: str = "{}") -> dict[str, Any]:
    shape = shape_of(COLUMNS, is_text=False)
    return {"ordinal": ordinal, "kind": "rule", "rule": "r", "reason": "why", "record": record, "columns": shape}


def batch(data: pa.Table, *, refused: int = 0) -> JudgedBatch:
    records = [refusal(n) for n in range(refused)]
    counts = Counts(read=data.num_rows + refused, used=data.num_rows, produced=data.num_rows, quarantined=refused)
    return JudgedBatch(data, pa.Table.from_pylist(records, REFUSED), counts, Measures())


def read_set(*, shadow: bool = False, name: str = "r1", hi: str | None = None, streams: int = 1) -> ReadSet:
    plan = SourcePlan(
        columns=(("id", "int64"), ("note", "string")),
        streams=tuple(Stream(str(number)) for number in range(streams)),
        ordered=True,
        order=("id",),
        hi=hi,
    )
    return ReadSet(name, "fingerprint", plan, 10, "_headrace_stage_0123456789abcdef" if shadow else None)


def target(planned: ReadSet, *, mode: Mode = Mode.APPEND, columns: tuple[Column, ...] = COLUMNS) -> Target:
    return Target(
        TABLE, mode, planned.shadow, columns, "01890000-0000-7000-8000-000000000000", False, mode is Mode.REPLACE
    )


async def token_of(store: IDataStore, lane: Lane = LANE, table: TableName = TABLE) -> str:
    """The token of the lane's latest take-over. A stale fence is tried with it, so that the fence alone refuses."""
    return (await store.lane_state(lane, table)).token or ""


async def opened(
    store: IDataStore, fence: int, planned: ReadSet, *, mode: Mode = Mode.APPEND, lane: Lane = LANE
) -> LaneState:
    async with store.owner(lane, TABLE, fence, token=await token_of(store, lane)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target(planned, mode=mode))
        return await owner.take_over()


async def commit(
    store: IDataStore,
    fence: int,
    planned: ReadSet,
    seq: int,
    data: JudgedBatch,
    *,
    is_last: bool = False,
    stream: str = "0",
    lane: Lane = LANE,
    mode: Mode = Mode.APPEND,
) -> None:
    async with store.writer(
        lane, target(planned, mode=mode), planned.id, stream, fence, await token_of(store, lane)
    ) as writer:
        await writer.commit(data, CheckpointUpdate(seq, (str(seq),), data.counts, Measures(), is_last))


async def published(
    store: IDataStore, fence: int, planned: ReadSet, judgement: Judgement = ACCEPTED, *, mode: Mode = Mode.APPEND
) -> None:
    async with store.owner(LANE, TABLE, fence, token=await token_of(store)) as owner:
        await owner.publish(planned, target(planned, mode=mode), StagedChecks(), lambda _: judgement)


async def replaced(store: IDataStore, table: TableName, data: pa.Table) -> None:
    """Another run puts a table of these rows in the place of a table."""
    lane, planned = Lane("default", "another"), read_set(shadow=True, name="another")
    columns = tuple(columns_of(data.schema))
    wanted = replace(target(planned, mode=Mode.REPLACE, columns=columns), table=table)
    fence = (await store.lane_state(lane, table)).fence + 1
    async with store.owner(lane, table, fence) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, wanted)
        async with store.writer(lane, wanted, planned.id, "0", fence, await token_of(store, lane, table)) as writer:
            await writer.commit(batch(data), CheckpointUpdate(1, ("1",), batch(data).counts, Measures(), True))
        await owner.publish(planned, wanted, StagedChecks(), lambda _: ACCEPTED)


async def holds(store: IDataStore, kind: pa.DataType) -> bool:
    """Whether a store has a type (`spell`); a table of one that it does not have is refused."""
    if store.spell(logical_type(kind)) is not None:
        return True
    with pytest.raises(SchemaMismatchError):
        await store.write(TableName("unheld"), [pa.table({"v": pa.nulls(1, kind)})])
    assert await store.describe(TableName("unheld")) is None
    return False


async def held_by(store: IDataStore, data: pa.Table) -> pa.Table:
    """The columns of a table whose types a store has."""
    return data.select([field.name for field in data.schema if await holds(store, field.type)])


async def content(store: IDataStore, table: TableName = TABLE) -> list[dict[str, Any]]:
    if await store.describe(table) is None:
        return []
    found: list[dict[str, Any]] = []
    async for part in store.read(SourceSpec(table=table), batch_rows=1000):
        found += pa.table(part).to_pylist()
    return sorted(found, key=lambda row: str(row))


async def ids(store: IDataStore) -> list[int]:
    return sorted(row["id"] for row in await content(store))


async def read_ids(
    store: IDataStore, source: SourceSpec, after: Sequence[str] | None, *, batch_rows: int
) -> list[list[int]]:
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=batch_rows) as reader:
        return [
            pa.table(found.data).column("id").to_pylist()
            async for found in reader.batches(tuple(after) if after else None)
        ]
