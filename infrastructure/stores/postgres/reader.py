"""Reads one stream of a Postgres, decoded or as it travels, in the order of (cursor, key)."""

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from functools import cached_property

import pyarrow as pa

from domain.failpoints import fail_at
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.loads.way import Passage
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import Batch, EncodedRows, IPassingReader, SourceBatch, are_large
from domain.stores.table import Column
from infrastructure.stores.positions import place_after
from infrastructure.stores.postgres.passage import PassingReader
from infrastructure.stores.postgres.reading import Reading
from infrastructure.tabular.arrow import conform


class PostgresReader(IPassingReader):
    """Reads a stream in the order of (cursor, key), from one snapshot."""

    def __init__(
        self,
        reading: Reading,
        source: SourceSpec,
        plan: SourcePlan,
        stream: Stream,
        batch_rows: int,
        batch_bytes: int,
    ) -> None:
        self._reading = reading
        self._session = reading.session
        self._thread = reading.thread
        self._source = source
        self._plan = plan
        self._stream = stream
        self._batch_rows = batch_rows
        self._batch_bytes = batch_bytes

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        plan, source = self._plan, self._source
        columns = tuple(Column(name, kind) for name, kind in plan.columns)
        names = [column.name for column in columns]

        def opened() -> Generator[pa.Table]:
            selection = self._reading.selected(source)
            selection.check(columns)
            where = selection.belonging(source, plan, self._stream)
            where += f" AND {selection.after(plan.order, after)}" if after is not None else ""
            return selection.rows(
                self._session,
                self._batch_rows,
                (self._batch_bytes, self._batch_bytes),
                where=where,
                order=plan.order,
                limit=limit,
                only=[column.name for column in columns],
                places=plan.ordered,
                ties=plan.ordered and not plan.is_proved,
            )

        async with aclosing(self._thread.iterate(await self._thread.call(opened), is_large=are_large)) as batches:
            async for batch in batches:
                fail_at("extract.mid_page")
                place = place_after(batch, plan, before_christ="BC") if plan.ordered else None
                yield SourceBatch(conform(batch.select(names), columns), place)

    def encoded(self, after: Position | None, passage: Passage) -> AsyncGenerator[EncodedRows, None]:
        return self._passing.encoded(after, passage)

    async def decoded(self, rows: EncodedRows) -> Batch:
        table: Batch = await self._passing.decoded(rows)
        return table

    @cached_property
    def _passing(self) -> PassingReader:
        return PassingReader(
            self._reading,
            self._source,
            self._plan,
            self._stream,
            batch_rows=self._batch_rows,
            batch_bytes=self._batch_bytes,
        )
