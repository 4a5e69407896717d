"""Previews and dry runs: rows are read, transformed and judged, and written nowhere."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace

from application.connections.open_stores import OpenStores
from application.loads.landing import transform_plan
from application.loads.patience import Patience
from application.loads.plan_read import ReadPlanner
from application.pipelines.turns import Turns
from domain.errors import InvalidInputError, PlatformError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import Batch, ISource
from domain.ports.security import TOO_LARGE
from domain.ports.transformer import ITransformer
from domain.quality.measures import Counts, Measures

# What steps make of a batch has to fit beside it into the memory that a preview may take.
_LARGEST_BYTES = 16 * 1024 * 1024
# Of rows that are no larger than that, there are batches of many previews in memory.
_FEW_BYTES = 2 * 1024 * 1024
_TOO_LARGE = ("source.row_too_large", "key.ties")


@dataclass(frozen=True)
class Preview:
    """The first rows after transforms, and what became of the rows that were read."""

    columns: tuple[tuple[str, str], ...]
    batches: tuple[Batch, ...]
    counts: Counts
    measures: Measures
    note: str | None = None


@dataclass(frozen=True)
class Previewer:
    """Makes previews."""

    stores: OpenStores
    reads: ReadPlanner
    transformer: ITransformer
    max_preview_bytes: int
    turns: Turns
    patience: Patience
    give_back: Callable[[], None]

    async def preview(
        self, principal: Principal, spec: PipelineSpec, *, limit: int | None, keep_rows: bool = True
    ) -> Preview:
        """Read, transform and judge up to `limit` rows without writing; with no limit, all of them (a dry run).

        Raises:
            NotFoundError, InvalidInputError: the source or a transform is wrong.
            UnavailableError: so many are being made already, or of large rows for so long (`worker.busy`).
            WorkFailedError: it takes too long, or one answer of the source does where all rows are only counted
            (`query.timeout`).
        """
        require(principal, Action.PREVIEW)
        async with self.turns.one(principal, is_dry=not keep_rows):
            async with self.patience.within() if keep_rows else nullcontext():
                return await self._previewed(principal, spec, limit=limit, keep_rows=keep_rows)

    async def _previewed(
        self, principal: Principal, spec: PipelineSpec, *, limit: int | None, keep_rows: bool
    ) -> Preview:
        store = await self.stores.named(principal.organization, spec.source.connection)
        spec = await self.reads.with_key(store, spec)
        planning = store.plan(replace(spec.source, cursor=None), lo=None, limit=limit)
        plan = await self.patience.answer(self.reads.planned(planning))
        most = min(self.reads.batch_bytes(spec), _LARGEST_BYTES)
        if not keep_rows:  # It may have read for hours where the first large row comes.
            return await self._read(store, spec, plan, most, limit=limit, keep_rows=False)
        try:
            return await self._read(store, spec, plan, min(most, _FEW_BYTES), limit=limit, keep_rows=True)
        except PlatformError as error:
            if error.code not in _TOO_LARGE or most <= _FEW_BYTES:
                raise
        async with self.turns.large(principal):
            return await self._read(store, spec, plan, most, limit=limit, keep_rows=True)

    async def _read(
        self, store: ISource, spec: PipelineSpec, plan: SourcePlan, size: int, *, limit: int | None, keep_rows: bool
    ) -> Preview:
        lenient = replace(spec, quality=tuple(rule for rule in spec.quality if rule.is_row_rule))
        rows = self.reads.batch_rows(spec) if limit is None else min(limit, self.reads.batch_rows(spec))
        source = replace(spec.source, cursor=None)
        kept: list[Batch] = []
        counts, measures, read_bytes = Counts(), Measures(), 0
        try:
            async with (
                self.transformer.prepare(transform_plan(_warning(lenient), plan, ())) as transform,
                store.reader(source, plan, plan.streams[0], batch_rows=rows, batch_bytes=size) as reader,
                aclosing(self.patience.each(self.reads.patience.each(reader.batches(None, limit=limit)))) as batches,
            ):
                columns = tuple((column.name, column.type) for column in transform.columns)
                async for batch in batches:
                    read_bytes += batch.data.nbytes
                    judged = await (transform.apply if keep_rows else transform.measured)(batch.data)
                    counts, measures = counts + judged.counts, measures + judged.measures
                    if keep_rows:
                        kept.append(judged.accepted)
                        self._check_size(kept)
        finally:
            if read_bytes > _LARGEST_BYTES:
                await asyncio.to_thread(self.give_back)
        return Preview(columns, tuple(kept), counts, measures, plan.note)

    def _check_size(self, kept: Sequence[Batch]) -> None:
        size = sum(batch.nbytes for batch in kept)
        if size > self.max_preview_bytes:
            raise InvalidInputError(
                f"The rows have more than {self.max_preview_bytes // 1024**2} MB together: ask for fewer.",
                code=TOO_LARGE,
            )


def _warning(spec: PipelineSpec) -> PipelineSpec:
    """A preview shows what violates a rule instead of stopping at it."""
    return replace(spec, quality=tuple(rule.patient for rule in spec.quality))
