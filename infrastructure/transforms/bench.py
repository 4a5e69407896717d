"""ITransformer whose steps and rules are compiled and run in child processes, where users have written them."""

import asyncio
import hashlib
import pickle
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pyarrow as pa

from domain.ports.data_store import Batch, Conversions, JudgedBatch
from domain.ports.transformer import IPreparedTransform, ITransformer, TransformPlan
from domain.stores.table import ORDINAL, Column
from infrastructure.bench.bench import Bench
from infrastructure.tabular.arrow import to_table
from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes
from infrastructure.transforms.duckdb import DuckDBTransformer
from infrastructure.transforms.in_child import Described, EngineLimits, JudgedBytes, describe, judge
from infrastructure.transforms.python import Hook, PythonHooks
from infrastructure.transforms.refused import nothing_judged
from infrastructure.transforms.runs import python_steps
from infrastructure.transforms.sizes import is_written

_REMEMBERED = 256
_NOTHING = pa.table({})


class StepPlanner:
    """Compiles plans in a child and remembers what is known of them."""

    def __init__(self, bench: Bench) -> None:
        # No values are looked at, so that it takes no longer than a query; runs are planned beside slow previews.
        self._bench = bench.within(bench.limits.seconds or 1)
        self._limits = engine_limits(bench, threads=1)
        self._described: OrderedDict[bytes, Described] = OrderedDict()

    async def described(self, plan: TransformPlan, hooks: Mapping[str, Hook]) -> Described:
        """Compile a plan."""
        parts = (plan, [hook.provenance["source_sha256"] for hook in hooks.values()])
        key = hashlib.sha256(pickle.dumps(parts)).digest()
        found = self._described.get(key)
        if found is None:
            found = await self._bench.acall_answering(_Answers(hooks, _NOTHING), describe, plan, self._limits)
            self._described[key] = found
            if len(self._described) > _REMEMBERED:
                self._described.popitem(last=False)
        return found


class BenchTransformer(ITransformer):
    """Has plans with users' SQL, or patterns that may take long, compiled in a child of the planner, and their batches
    judged in one of `bench`.

    The rest is done here by `inner`; so are, with `keeps_own`, batches of plans whose steps keep the size of rows.
    """

    def __init__(
        self,
        inner: DuckDBTransformer,
        planner: StepPlanner,
        bench: Bench,
        hooks: PythonHooks,
        *,
        threads: int,
        keeps_own: bool = False,
    ) -> None:
        self._inner = inner
        self._planner = planner
        self._bench = bench
        self._hooks = hooks
        self._limits = engine_limits(bench, threads)
        self._keeps_own = keeps_own
        self._prepared = 0

    def prepare(self, plan: TransformPlan) -> AbstractAsyncContextManager[IPreparedTransform]:
        return self._prepare(plan) if is_written(plan) else self._inner.prepare(plan)

    @asynccontextmanager
    async def _prepare(self, plan: TransformPlan) -> AsyncIterator[IPreparedTransform]:
        hooks = await self._hooks.loaded(python_steps(plan))
        described = await self._planner.described(plan, hooks)
        if self._keeps_own and described.keeps_size:
            async with self._inner.prepare(plan) as transform:
                yield transform
            return
        self._prepared += 1
        try:
            yield BenchTransform(plan, described, self._bench, self._limits, hooks)
        finally:
            self._prepared -= 1
            if self._keeps_own:
                await asyncio.to_thread(self._bench.let_go, self._prepared)

    async def looks_at(self, plan: TransformPlan) -> tuple[str, ...]:
        if not is_written(plan):
            return await self._inner.looks_at(plan)
        hooks = await self._hooks.loaded(python_steps(plan))
        return (await self._planner.described(plan, hooks)).looks_at

    def conversions(self, plan: TransformPlan) -> Conversions:
        return self._inner.conversions(plan)

    def text_batch(self, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Batch:
        return self._inner.text_batch(names, rows)


class BenchTransform(IPreparedTransform):
    """One plan whose batches go to a child and come back judged."""

    def __init__(
        self, plan: TransformPlan, described: Described, bench: Bench, limits: EngineLimits, hooks: Mapping[str, Hook]
    ) -> None:
        self._plan = plan
        self._described = described
        self._bench = bench
        self._limits = limits
        self._hooks = hooks

    @property
    def columns(self) -> Sequence[Column]:
        return self._described.columns

    @property
    def hooks(self) -> Sequence[Mapping[str, str]]:
        return [self._hooks[name].provenance for name in python_steps(self._plan)]

    def empty(self) -> JudgedBatch:
        return nothing_judged(self.columns, self._plan)

    async def apply(self, batch: Batch) -> JudgedBatch:
        return await self._judged(batch, keeps_rows=True)

    async def measured(self, batch: Batch) -> JudgedBatch:
        return await self._judged(batch, keeps_rows=False)

    async def _judged(self, batch: Batch, *, keeps_rows: bool) -> JudgedBatch:
        rows = to_table(batch)
        given = await asyncio.to_thread(as_bytes, rows)
        answers = _Answers(self._hooks, rows)
        judged = await self._bench.acall_answering(answers, judge, self._plan, self._limits, given, keeps_rows)
        return await asyncio.to_thread(self._read, judged)

    def _read(self, judged: JudgedBytes) -> JudgedBatch:
        accepted, refused = of_bytes(judged.accepted), of_bytes(judged.refused)
        names = [*(column.name for column in self.columns), *self._plan.beside]
        if accepted.column_names != names:
            raise pa.ArrowInvalid("other columns than those of the plan")
        return JudgedBatch(accepted, refused, judged.counts, judged.measures)


def engine_limits(bench: Bench, threads: int) -> EngineLimits:
    """Leave room beside DuckDB for the rows as they come and go, and for each thread's own."""
    memory_mb = bench.limits.memory_mb
    return EngineLimits(memory_mb * 3 // 5, max(1, min(threads, memory_mb // 256)))


class _Answers:
    """Runs the plan's own Python functions for a child, over what it has made of a batch; it may name no other."""

    def __init__(self, hooks: Mapping[str, Hook], batch: pa.Table) -> None:
        self._hooks = hooks
        self._batch = batch

    def __call__(self, name: str, content: bytes) -> pa.Buffer:
        rows, hook = of_bytes(content), self._hooks[name]
        returned, places = hook.call(rows.drop_columns([ORDINAL]), rows.column(ORDINAL).combine_chunks(), self._batch)
        return as_bytes(returned.append_column(ORDINAL, places))
