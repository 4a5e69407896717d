"""Reads a table by its cursor again and again, as the runs of one pipeline do: each from where the one before ended."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from domain.loads.horizon import ReadEnd
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.ports.data_store import IDataStore
from domain.stores.table import TableName


class Reading:
    """What was read so far, and where the last read ended."""

    def __init__(self, store: IDataStore, table: str, cursor: CursorSpec, **source: Any) -> None:
        self.source = SourceSpec(table=TableName.parse(table), cursor=cursor, key=("id",), **source)
        self.ids: list[int] = []
        self.watermark: str | None = None
        self.end = ReadEnd()
        self._store = store

    async def goes_on(self, *, limit: int | None = None) -> list[int]:
        """Read what came since; what the next read has to know passes through JSON, as in the head of a lane."""
        before = self.end if self.watermark is not None else None
        plan = await self._store.plan(self.source, lo=self.watermark, limit=limit, before=before)
        plan = ReadSet.from_json(ReadSet("r", "f", plan, 10).to_json()).plan
        found: list[int] = []
        async with self._store.reader(self.source, plan, plan.streams[0], batch_rows=100) as reader:
            async for batch in reader.batches(None):
                found += pa.table(batch.data).column("id").to_pylist()
        assert plan.hi is not None
        assert plan.end is not None
        self.watermark, self.end = plan.hi, plan.end
        self.ids += found
        return found


async def all_go_on(readings: Sequence[Reading]) -> None:
    """Let all of them read at once."""
    await asyncio.gather(*(reading.goes_on() for reading in readings))
