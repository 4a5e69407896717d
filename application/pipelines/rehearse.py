"""What `crashtest` and `demo` need of the stores: what a table holds, and an end that leaves no trace of it."""

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from application.connections.open_stores import OpenStores
from application.plain_rows import rows_of
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.pipelines.spec import DEFAULT_CONNECTION, PipelineSpec, SourceSpec
from domain.ports.data_store import IDataStore
from domain.ports.records.unit_of_work import IRecords
from domain.runs.lane import Lane
from domain.stores.table import INTERNAL_PREFIX

_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Content:
    """A table as a multiset of rows, with the types of its columns; Headrace's own columns are left out."""

    types: tuple[tuple[str, str], ...]
    rows: Counter[str]


@dataclass(frozen=True)
class Rehearsal:
    """Looks at and removes the tables of rehearsed pipelines."""

    records: IRecords
    stores: OpenStores

    async def content(self, principal: Principal, spec: PipelineSpec) -> Content:
        """Read a rehearsed pipeline's table; empty when it was never made."""
        require(principal, Action.PREVIEW)
        store = await self._destination(principal, spec)
        described = await store.describe(spec.destination.table)
        if described is None:
            return Content((), Counter())
        kept = [column for column in described.columns if not column.name.startswith(INTERNAL_PREFIX)]
        rows: Counter[str] = Counter()
        source = SourceSpec(table=spec.destination.table)
        async with aclosing(store.read(source, batch_rows=_BATCH_ROWS)) as batches:
            async for batch in batches:
                for row in rows_of(batch):
                    rows[repr([row[column.name] for column in kept])] += 1
        return Content(tuple((column.name, column.type) for column in kept), rows)

    async def first_row(self, principal: Principal, query: str) -> dict[str, Any]:
        """The first row that a query finds in the store of the settings."""
        require(principal, Action.PREVIEW)
        store = await self.stores.named(principal.organization, DEFAULT_CONNECTION)
        async with aclosing(store.read(SourceSpec(query=query), batch_rows=1)) as batches:
            return rows_of(await anext(batches))[0]

    async def discard(self, principal: Principal, spec: PipelineSpec) -> None:
        """Drop a rehearsed pipeline's table and everything the destination remembers of it."""
        require(principal, Action.RESET_STATE)
        store = await self._destination(principal, spec)
        lane = Lane(principal.organization, spec.name)
        state = await store.lane_state(lane, spec.destination.table)
        if state.fence == 0:
            return
        async with store.owner(lane, spec.destination.table, state.fence + 1) as owner:
            await owner.take_over()
            await owner.discard()

    async def _destination(self, principal: Principal, spec: PipelineSpec) -> IDataStore:
        return await self.stores.named_destination(principal.organization, spec.destination.connection)
