"""ITransformer on a locked-down DuckDB: one in-memory instance per stream that sees nothing but its batch."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError
from domain.pipelines.steps import CastStep
from domain.ports.data_store import Batch, Conversions, JudgedBatch
from domain.ports.security import TOO_LARGE
from domain.ports.transformer import IPreparedTransform, ITransformer, TransformPlan
from domain.quality.measures import Counts, Measures
from domain.stores.table import DELETED, ORDINAL, Column
from infrastructure.engine_words import said_by_duckdb
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.sql import quote
from infrastructure.tabular.arrow import arrow_type, columns_of, to_table
from infrastructure.tabular.json_rows import shape_of
from infrastructure.threads import OneThread
from infrastructure.transforms.before import Before
from infrastructure.transforms.engine import for_many_parts, locked_down
from infrastructure.transforms.failures import batch_error, culprit
from infrastructure.transforms.keys import keys_of_refused, last_of_each, refuse_null
from infrastructure.transforms.newest import newest_of
from infrastructure.transforms.profiles import profiled_columns, profiles
from infrastructure.transforms.python import Hook, PythonHooks
from infrastructure.transforms.refused import REFUSED, Refusal, first_errors, nothing_judged, refused_table
from infrastructure.transforms.rules import check_bounds, check_rules, looked_at, unbound, verdict_name, violation
from infrastructure.transforms.runs import SqlSteps, python_steps, runs_of
from infrastructure.transforms.sizes import has_many_parts
from infrastructure.transforms.stages import SOURCE, Stages, check_names, conversions_of, texts_among
from infrastructure.transforms.verdicts import unconverted_rows, verdicts
from infrastructure.transforms.wide import InParts, converted_by_parts, is_wide, schema_of

_NO_ORDINALS = pa.array([], pa.int64())


class DuckDBTransformer(ITransformer):
    """Compiles SQL steps and row rules into one query per batch."""

    def __init__(
        self,
        *,
        memory_limit: str = "512MB",
        threads: int = 2,
        hooks: PythonHooks | None = None,
    ) -> None:
        self._limits = (memory_limit, threads)
        self._hooks = hooks or PythonHooks()

    @asynccontextmanager
    async def prepare(self, plan: TransformPlan) -> AsyncIterator[IPreparedTransform]:
        hooks = await self._hooks.loaded(python_steps(plan))
        runs = [(run, hooks[step.name] if step else None) for run, step in runs_of(plan)]
        thread = OneThread("transform")
        engine = partial(for_many_parts if has_many_parts(plan) else locked_down, *self._limits)
        prepared = DuckDBTransform(plan, thread, runs, engine=engine)
        thread.interrupt = prepared.interrupt
        try:
            if prepared.is_known:
                prepared.begin()
            else:
                await thread.call(prepared.begin)
            yield prepared
        finally:
            if not (prepared.passes_through or thread.is_abandoned):
                await thread.call(prepared.close)
            thread.close()

    def text_batch(self, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Batch:
        columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(names))]
        batch: Batch = pa.table(columns, names=list(names))
        return batch

    async def looks_at(self, plan: TransformPlan) -> tuple[str, ...]:
        return looked_at(plan)

    def conversions(self, plan: TransformPlan) -> Conversions:
        return conversions_of(plan)


class DuckDBTransform(IPreparedTransform):
    """One plan, compiled."""

    def __init__(
        self,
        plan: TransformPlan,
        thread: OneThread,
        runs: Sequence[tuple[Sequence[SqlSteps], Hook | None]],
        *,
        engine: Callable[[], duckdb.DuckDBPyConnection],
    ) -> None:
        self._plan = plan
        self._runs = runs
        self._before: list[Before] = []
        self._failures_query: str | None = None
        self._passed_by: tuple[str, ...] = ()
        self._thread = thread
        self._engine = engine
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._columns: tuple[Column, ...] = plan.source
        self._query: str | None = None
        self._counts_query: str | None = None
        self._steps_query: str | None = None
        self._parameters: dict[str, Any] = {}
        self._numbers = pa.array([], pa.int64())
        self._is_wide = plan.source_is_text and is_wide(plan.source)
        self._row_rules = [(index, rule) for index, rule in enumerate(plan.rules) if rule.is_row_rule]
        self._time_columns = [rule.column for rule in plan.rules if rule.kind == "freshness" and rule.column]
        self._profiled = profiled_columns(plan.rules)
        self._null_columns = [rule.column for rule in plan.rules if rule.kind == "null_rate" and rule.column]

    @property
    def columns(self) -> Sequence[Column]:
        names = self._plan.landing_names(_names(self._columns))
        return tuple(Column(name, column.type) for name, column in zip(names, self._columns, strict=True))

    async def apply(self, batch: Batch) -> JudgedBatch:
        if self.passes_through:
            return self._apply(to_table(batch))
        return await self._thread.call(self.judge, to_table(batch))

    def judge(self, batch: pa.Table) -> JudgedBatch:
        """Judge a batch: what is accepted, under the destination's names, and one row for each key unless it is
        replayed; blocking.
        """
        judged = self._apply(batch)
        names = self._plan.landing_names(to_table(judged.accepted).column_names)
        accepted = to_table(judged.accepted).rename_columns(names)
        if not self._plan.key or not accepted.num_rows:
            return replace(judged, accepted=accepted)
        refuse_null(accepted, self._plan.key)
        last = accepted if self._plan.replayed else last_of_each(accepted, self._plan.key)
        repeated = accepted.num_rows - last.num_rows
        return replace(judged, accepted=last, counts=judged.counts + Counts(deduplicated=repeated))

    @cached_property
    def passes_through(self) -> bool:
        """Nothing looks at the values: no step, no rule on a column, no conversion. Then no instance is needed."""
        return self._plan.keeps_values and not looked_at(self._plan) and not self._plan.key

    @cached_property
    def only_converts(self) -> bool:
        """Its columns are known before it is compiled."""
        return self._plan.only_converts and not looked_at(self._plan)

    @property
    def hooks(self) -> Sequence[Mapping[str, str]]:
        return [hook.provenance for _, hook in self._runs if hook is not None]

    def interrupt(self) -> None:
        """Make the batch that another thread works on give up."""
        if self._connection is not None:
            self._connection.interrupt()

    def empty(self) -> JudgedBatch:
        return nothing_judged(self.columns, self._plan)

    @property
    def is_known(self) -> bool:
        """Its columns are known before it is compiled."""
        return self.passes_through or self.only_converts

    def begin(self) -> None:
        """Compile it, or check the rules where that can wait; blocking."""
        if self.is_known:
            check_rules(self._plan, self.columns)
        else:
            self.open()

    def open(self) -> None:
        """Connect to the engine and compile; blocking."""
        self._connection = self._engine()
        self._compile(self._connection)

    def close(self) -> None:
        """End the connection, and the engine with the last one to it; blocking."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _compile(self, connection: duckdb.DuckDBPyConnection) -> None:
        plan, columns = self._plan, self._plan.source
        arrives_as_text, is_converted = plan.source_is_text and not self._is_wide, self._is_wide
        arriving = pa.schema([(c.name, pa.string() if arrives_as_text else arrow_type(c.type)) for c in columns])
        arriving = schema_of(columns) if is_converted else arriving
        try:
            for run, hook in self._runs:
                check_names(columns)
                self._register(connection, arriving.empty_table(), _NO_ORDINALS)
                guessed = plan.guessed if arrives_as_text else ()
                stages = Stages(
                    connection, columns, arrives_as_text=arrives_as_text, guessed=guessed, is_converted=is_converted
                )
                for step in run:
                    if isinstance(step, CastStep):
                        stages = self._converting(connection, stages, InParts(tuple(stages.cast(step))))
                    else:
                        stages.add(step)
                if hook is None:
                    self._compile_judging(connection, stages)
                    return
                self._before.append(Before.of(stages, hook))
                empty = pa.schema([(c.name, arrow_type(c.type)) for c in stages.columns]).empty_table()
                returned, _ = hook.call(empty, _NO_ORDINALS, empty)
                arriving, arrives_as_text, is_converted = returned.schema, False, False
                columns = columns_of(arriving)
        except duckdb.OutOfMemoryException as error:
            raise InvalidInputError(
                "The steps and rules together need more memory to be planned than they may take: let them be fewer "
                "or smaller.",
                code=TOO_LARGE,
            ) from error
        except duckdb.Error as error:
            raise InvalidInputError(
                f"A step or rule cannot be planned: {said_by_duckdb(error)}.{texts_among(columns)}",
                code="transform.invalid",
            ) from error

    def _converting(self, connection: duckdb.DuckDBPyConnection, stages: Stages, columns: InParts) -> Stages:
        """Convert columns in the same statement, or some at a time where that would have too many: then
        others follow.
        """
        if stages.has_room_for(columns.pairs):
            stages.convert(columns.pairs, exactly=columns.exactly)
            return stages
        self._before.append(Before.of(stages, columns))
        self._register(connection, columns.schema.empty_table(), _NO_ORDINALS)
        there = tuple(Column(name, wanted) for name, _, wanted in columns.pairs)
        return Stages(connection, there, arrives_as_text=False, is_converted=True)

    def _compile_judging(self, connection: duckdb.DuckDBPyConnection, stages: Stages) -> None:
        """Convert to the types of the destination's columns, where they exist and differ, then judge."""
        target = {column.name: column.type for column in self._plan.target}
        landing = self._plan.landing_names(_names(stages.columns))
        wanted = [(c.name, c.type, target.get(n, c.type)) for n, c in zip(landing, stages.columns, strict=True)]
        exactly = frozenset(_names(stages.columns))  # As nobody has asked for it.
        stages = self._converting(connection, stages, InParts(tuple(wanted), exactly))
        self._columns = stages.columns
        self._steps_query = f"{stages.text} SELECT * FROM {stages.last}"
        judged = f"{stages.text}, judged AS ({self._judged(stages.last)})"
        check_bounds((rule for _, rule in self._row_rules), {c.name: c for c in self._columns}, connection)
        self._passed_by = self._unconverted(stages)
        names = ", ".join(quote(name) for name in self._passed_by)
        everything = f"* EXCLUDE ({names})" if names else "*"
        self._query, self._failures_query = f"{judged} SELECT {everything} FROM judged", stages.failures
        try:
            connection.execute(self._query, self._parameters or None).fetchall()
        except duckdb.BinderException as error:
            raise unbound(self._plan, self._columns) or error from error
        if self._row_rules and self._plan.keeps_values:
            counts = ", ".join(f"count(*) FILTER (WHERE {verdict_name(index)})" for index, _ in self._row_rules)
            self._counts_query = f"{judged} SELECT {counts} FROM judged"

    def _unconverted(self, stages: Stages) -> tuple[str, ...]:
        """The columns that nothing converts, where all that is done is to convert and to look: they need
        not come back.
        """
        plan = self._plan
        if plan.steps or plan.deleted_when is not None:
            return ()
        is_text = plan.source_is_text and not self._is_wide
        kept = {column for column in stages.columns if column.type == "string" or not is_text}
        return tuple(column.name for column in plan.source if column in kept)

    @staticmethod
    def _register(connection: duckdb.DuckDBPyConnection, rows: pa.Table, ordinals: pa.Array) -> None:
        connection.register(SOURCE, rows.append_column(ORDINAL, ordinals))

    def _judged(self, last: str) -> str:
        names = {column.name: column for column in self._columns}
        check_rules(self._plan, self._columns)
        verdicts = [
            f"coalesce({violation(index, rule, names, self._parameters)}, false) AS {verdict_name(index)}"
            for index, rule in self._row_rules
        ]
        if self._plan.deleted_when is not None:
            deleted = IN_PROCESS.predicate(self._plan.deleted_when)
            verdicts.append(f"coalesce((\n{deleted.text}\n), false) AS {DELETED}")
        return f"SELECT {', '.join(['*', *verdicts])} FROM {last} AS batch"

    def _apply(self, batch: pa.Table) -> JudgedBatch:
        if self.passes_through or (self._plan.keeps_values and not self._row_rules):
            return self._untouched(batch)
        refused: list[Refusal] = []
        judged = self._looked_at(batch, refused)
        if judged is None:
            return self._untouched(batch)
        keep, violations = verdicts(batch, judged, self._row_rules, refused)
        # A Python function may give several rows for one: source rows are counted by their ordinals, and all that came
        # of a refused one is refused with it.
        refused = list({refusal[0]: refusal for refusal in reversed(refused)}.values())
        gone = {ordinal for ordinal, *_ in refused}
        failed = {ordinal for ordinal, kind, *_ in refused if kind == "conversion"}
        if self._before and gone:
            value_set = pa.array(sorted(gone), pa.int64())
            keep = pc.and_(keep, pc.invert(pc.is_in(judged.column(ORDINAL), value_set=value_set)))
        kept = judged.filter(keep) if refused else judged
        accepted = kept.select([*_names(self._columns), *self._plan.beside])
        used = len(pc.unique(kept.column(ORDINAL))) if self._before else accepted.num_rows
        counts = Counts(
            read=batch.num_rows,
            used=used,
            filtered=batch.num_rows - used - len(gone),
            produced=accepted.num_rows,
            quarantined=len(gone - failed),
            failed=len(failed),
        )
        return JudgedBatch(
            accepted=accepted,
            refused=refused_table(batch, refused, self._shape, self._keys_of(judged, refused)),
            counts=counts,
            measures=self._measures(batch, accepted, refused, violations),
        )

    def _looked_at(self, batch: pa.Table, refused: list[Refusal]) -> pa.Table | None:
        """Give the rows after all steps, with their failures and verdicts; None where no rule refuses any and none
        changes.
        """
        if self._connection is None:
            self.open()
        connection = self._connection
        assert connection is not None
        assert self._query is not None
        rows, ordinals = batch, self._ordinals(batch.num_rows)
        try:
            if self._is_wide:
                rows = converted_by_parts(connection, rows, self._plan.source, self._plan.guessed)
            for before in self._before:
                self._register(connection, rows, ordinals)
                rows, ordinals = before.run(connection, refused, batch)
            self._register(connection, rows, ordinals)
            if self._counts_query is not None:
                # Most batches violate nothing: then only the columns that rules name are looked at, and none is copied.
                found = connection.execute(self._counts_query, self._parameters or None).fetchall()
                if not any(found[0]):
                    return None
            judged = connection.sql(self._query, params=self._parameters or None).to_arrow_table()
            if self._failures_query is not None:
                refused += unconverted_rows(connection.execute(self._failures_query).fetchall())
        except duckdb.Error as error:
            raise batch_error(error, culprit(self._plan, connection, self._steps_query)) from error
        if self._passed_by and not judged.column(ORDINAL).equals(pa.chunked_array([ordinals])):
            rows = rows.take(judged.column(ORDINAL))
        for name in self._passed_by:
            judged = judged.append_column(name, rows.column(name))
        return judged

    def _keys_of(self, judged: pa.Table, refused: Sequence[Refusal]) -> dict[int, str | None]:
        names = dict(zip(self._plan.landing_names(_names(self._columns)), self._columns, strict=True))
        key = [names[name] for name in self._plan.key]
        return keys_of_refused(judged, refused, _names(key), [c.name for c in key if c.type == "uuid"])

    @cached_property
    def _shape(self) -> str:
        plan = self._plan
        return shape_of(plan.source, is_text=plan.source_is_text, guessed=plan.guessed)

    def _untouched(self, batch: pa.Table) -> JudgedBatch:
        counts = Counts(read=batch.num_rows, used=batch.num_rows, produced=batch.num_rows)
        if ORDINAL in self._plan.beside:
            batch = batch.append_column(ORDINAL, self._ordinals(batch.num_rows))
        return JudgedBatch(batch, REFUSED.empty_table(), counts, self._measures(batch, batch, (), {}))

    def _ordinals(self, count: int) -> pa.Array:
        """0 … count - 1; batches are alike in size, so the numbers are kept."""
        if len(self._numbers) < count:
            self._numbers = pa.array(range(count), pa.int64())
        return self._numbers.slice(0, count)

    def _measures(
        self, batch: pa.Table, accepted: pa.Table, refused: Sequence[Refusal], violations: dict[str, int]
    ) -> Measures:
        times = self._time_columns if accepted.num_rows else ()
        newest = {name: newest_of(accepted.column(name)) for name in times}
        is_profiled = self._profiled and self._connection is not None
        return Measures(
            violations=violations,
            nulls={name: accepted.column(name).null_count for name in self._null_columns},
            newest={name: time for name, time in newest.items() if time is not None},
            profiles=profiles(self._connection, accepted, self._profiled) if is_profiled else {},
            unconverted=dict(Counter(column for _, kind, column, _ in refused if kind == "conversion")),
            first_errors=first_errors(batch, refused, self._plan.rules) if refused else (),
        )


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]
