"""ITransformer on a locked-down DuckDB: one in-memory instance per stream that sees nothing but its batch."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError, PlatformError, QualityRejectedError, WorkFailedError
from domain.pipelines.checkpoint import Counts
from domain.pipelines.quality import OnViolation, Rule, rule_key
from domain.pipelines.table import DELETED, ORDINAL, Column
from domain.ports.data_store import Batch, JudgedBatch
from domain.ports.transformer import IPreparedTransform, ITransformer, TransformPlan
from infrastructure.arrow import arrow_type, logical_type, to_table
from infrastructure.sql import check_row_predicate, columns_of_predicate, quote, row_wise
from infrastructure.threads import OneThread
from infrastructure.transforms.conversions import conversion, sql_type
from infrastructure.transforms.keys import last_of_each
from infrastructure.transforms.refused import REFUSED, Refusal, refused_table

_FAILED = "_headrace_failed"
_FIRST_ERRORS = 5


class DuckDBTransformer(ITransformer):
    """Compiles SQL steps and row rules into one query per batch."""

    def __init__(self, *, memory_limit: str = "512MB", threads: int = 2) -> None:
        self._memory_limit = memory_limit
        self._threads = threads

    @asynccontextmanager
    async def prepare(self, plan: TransformPlan) -> AsyncIterator[IPreparedTransform]:
        thread = OneThread("transform")
        prepared = DuckDBTransform(plan, thread, memory_limit=self._memory_limit, threads=self._threads)
        thread.interrupt = prepared.interrupt
        try:
            if prepared.passes_through:
                prepared.check_rules()
            else:
                await thread.call(prepared.open)
            yield prepared
        finally:
            if not (prepared.passes_through or thread.is_abandoned):
                await thread.call(prepared.close)
            thread.close()

    def looks_at(self, plan: TransformPlan) -> tuple[str, ...]:
        return looked_at(plan)


def looked_at(plan: TransformPlan) -> tuple[str, ...]:
    """The source columns that row rules and measures look at; `unique` and its like are measured at the destination."""
    names: set[str] = set()
    for rule in plan.rules:
        if rule.column is not None:
            names.add(rule.column)
        if rule.expression is not None:
            names |= columns_of_predicate(rule.expression)
    lower = {name.lower() for name in names}
    return tuple(column.name for column in plan.source if column.name.lower() in lower)


class DuckDBTransform(IPreparedTransform):
    """One plan, compiled."""

    def __init__(self, plan: TransformPlan, thread: OneThread, *, memory_limit: str, threads: int) -> None:
        self._plan = plan
        self._thread = thread
        self._memory_limit = memory_limit
        self._threads = threads
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._columns: tuple[Column, ...] = plan.source
        self._query: str | None = None
        self._counts_query: str | None = None
        self._parameters: dict[str, Any] = {}
        self._numbers = pa.array([], pa.int64())
        self._row_rules = [(index, rule) for index, rule in enumerate(plan.rules) if rule.is_row_rule]
        self._null_columns = [rule.column for rule in plan.rules if rule.kind == "null_rate" and rule.column]

    @property
    def columns(self) -> Sequence[Column]:
        return tuple(Column(self._plan.landing_name(column.name), column.type) for column in self._columns)

    async def apply(self, batch: Batch) -> JudgedBatch:
        if self.passes_through:
            return self._apply(to_table(batch))
        return await self._thread.call(self._landed, to_table(batch))

    def _landed(self, batch: pa.Table) -> JudgedBatch:
        """What is accepted, under the destination's names, and one row for each key."""
        judged = self._apply(batch)
        names = [self._plan.landing_name(name) for name in to_table(judged.accepted).column_names]
        accepted = to_table(judged.accepted).rename_columns(names)
        if not self._plan.key or not accepted.num_rows:
            return replace(judged, accepted=accepted)
        last = last_of_each(accepted, self._plan.key)
        repeated = accepted.num_rows - last.num_rows
        return replace(judged, accepted=last, counts=judged.counts + Counts(deduplicated=repeated))

    @cached_property
    def passes_through(self) -> bool:
        """Nothing looks at the values: no step, no rule on a column, no conversion. Then no instance is needed."""
        return self._plan.keeps_values and not looked_at(self._plan) and not self._plan.key

    def interrupt(self) -> None:
        """Make the batch that another thread works on give up."""
        if self._connection is not None:
            self._connection.interrupt()

    def empty(self) -> JudgedBatch:
        columns = list(self.columns)
        if self._plan.deleted_when is not None:
            columns.append(Column(DELETED, "bool"))
        arrays = [pa.array([], arrow_type(column.type)) for column in columns]
        return JudgedBatch(pa.table(arrays, names=_names(columns)), REFUSED.empty_table(), Counts(), {})

    def open(self) -> None:
        """Start the instance and compile; blocking."""
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": self._memory_limit,
                "threads": self._threads,
                "python_enable_replacements": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection = connection
        for statement in (
            "SET GLOBAL TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement)
        self._compile(connection)

    def close(self) -> None:
        """End the instance; blocking."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _compile(self, connection: duckdb.DuckDBPyConnection) -> None:
        plan = self._plan
        empty = pa.table([pa.array([], self._arriving(column)) for column in plan.source], names=_names(plan.source))
        connection.register("_headrace_source", empty.append_column(ORDINAL, pa.array([], pa.int64())))
        stages = [f"s0 AS ({self._converted_source()})"]
        for number, step in enumerate(plan.steps):
            inner = f"WITH batch AS (SELECT * EXCLUDE ({_FAILED}) FROM s{number} WHERE {_FAILED} IS NULL)"
            kept = f"SELECT *, NULL::VARCHAR AS {_FAILED} FROM ({inner} {row_wise(step.sql)}) AS stepped"
            # Rows that failed to convert at the source pass by the steps; they are counted from the first stage.
            stages.append(f"s{number + 1} AS ({kept})")
        last = f"s{len(plan.steps)}"
        try:
            self._columns = self._described(connection, stages, last)
            stages.append(f"converted AS ({self._converted_target(last)})")
            stages.append(f"judged AS ({self._judged()})")
            self._query = f"WITH {', '.join(stages)} SELECT * FROM judged"
            self._failures_query = f"WITH {stages[0]} SELECT {ORDINAL}, {_FAILED} FROM s0 WHERE {_FAILED} IS NOT NULL"
            connection.execute(self._query, self._parameters or None).fetchall()
            if self._row_rules and self._plan.keeps_values:
                counts = ", ".join(f"count(*) FILTER (WHERE v{index})" for index, _ in self._row_rules)
                self._counts_query = f"WITH {', '.join(stages)} SELECT {counts} FROM judged"
        except duckdb.Error as error:
            raise InvalidInputError(_first_line(error), code="transform.invalid") from error

    def _arriving(self, column: Column) -> pa.DataType:
        return pa.string() if self._plan.source_is_text else arrow_type(column.type)

    def _converted_source(self) -> str:
        if not self._plan.source_is_text:
            return f"SELECT *, NULL::VARCHAR AS {_FAILED} FROM _headrace_source"
        return self._conversion_stage(
            "_headrace_source", [(column.name, "string", column.type) for column in self._plan.source]
        )

    def _converted_target(self, last: str) -> str:
        """Convert to the types of the destination's columns, where they exist and differ."""
        target = {column.name: column.type for column in self._plan.target}
        landing = [self._plan.landing_name(column.name) for column in self._columns]
        if len(set(landing)) < len(landing):
            raise InvalidInputError(
                "Two columns have one name at the destination; rename one, or say columns: source.",
                code="columns.collision",
            )
        pairs = [
            (column.name, column.type, target.get(name, column.type))
            for column, name in zip(self._columns, landing, strict=True)
        ]
        self._columns = tuple(Column(name, wanted) for name, _, wanted in pairs)
        return self._conversion_stage(last, pairs, earlier=_FAILED)

    def _conversion_stage(self, source: str, pairs: Sequence[tuple[str, str, str]], *, earlier: str = "") -> str:
        """Convert columns; the first that does not convert names the row's failure, unless an `earlier` stage did."""
        outputs, failures = [quote(ORDINAL)], []
        for name, given, wanted in pairs:
            column = quote(name)
            if given == wanted or (sql_type(given) == sql_type(wanted) == "VARCHAR" and wanted == "string"):
                outputs.append(column)
                continue
            converted = conversion(column, given, wanted)
            outputs.append(f"{converted} AS {column}")
            failures.append(f"WHEN {column} IS NOT NULL AND ({converted}) IS NULL THEN {_literal(name)}")
        failed = f"CASE {' '.join(failures)} END" if failures else "NULL::VARCHAR"
        failed = f"coalesce({earlier}, {failed})" if earlier else failed
        return f"SELECT {', '.join(outputs)}, {failed} AS {_FAILED} FROM {source}"

    def _described(self, connection: duckdb.DuckDBPyConnection, stages: Sequence[str], last: str) -> tuple[Column, ...]:
        relation = connection.sql(f"WITH {', '.join(stages)} SELECT * EXCLUDE ({_FAILED}) FROM {last}")
        schema = relation.to_arrow_reader(1).schema
        known = {column.name: column for column in self._plan.source}
        described = []
        seen: set[str] = set()
        for field in schema:
            if field.name == ORDINAL:
                continue
            if field.name.lower() in seen:
                raise InvalidInputError(f"Two columns are named {field.name}.", code="transform.invalid")
            seen.add(field.name.lower())
            source = known.get(field.name)
            # What travels as text but is more (uuid, json, a store's own type) stays what it is when it is passed on.
            if source and source.type != "string" and arrow_type(source.type).equals(field.type):
                described.append(source)
            else:
                described.append(Column(field.name, logical_type(field.type)))
        return tuple(described)

    def _judged(self) -> str:
        names = {column.name: column for column in self._columns}
        verdicts = []
        for index, rule in self._row_rules:
            for column in (rule.column,) if rule.column else ():
                if column not in names:
                    raise InvalidInputError(
                        f"The rule {rule.label} names a column that is not there after the transforms.",
                        code="quality.column_missing",
                    )
            violated = self._violation(index, rule, names)
            verdicts.append(f"coalesce({violated}, false) AS v{index}")
        if self._plan.deleted_when is not None:
            check_row_predicate(self._plan.deleted_when)
            verdicts.append(f"coalesce((\n{self._plan.deleted_when}\n), false) AS {DELETED}")
        self.check_rules()
        return f"SELECT {', '.join(['*', *verdicts])} FROM converted AS batch"

    def check_rules(self) -> None:
        """Refuse rules over columns that are not there.

        Raises:
            InvalidInputError: `quality.column_missing`.
        """
        names = {column.name for column in self._columns}
        for rule in () if self._plan.is_partial else self._plan.rules:
            for column in [*rule.columns, *([rule.column] if rule.column else [])]:
                if column not in names:
                    raise InvalidInputError(
                        f"The rule {rule.label} names {column}, which is not there after the transforms.",
                        code="quality.column_missing",
                    )

    def _violation(self, index: int, rule: Rule, columns: dict[str, Column]) -> str:
        column = quote(rule.column) if rule.column else ""
        match rule.kind:
            case "not_null":
                return f"{column} IS NULL"
            case "between":
                parts = []
                for side, value, comparison in (("min", rule.minimum, "<"), ("max", rule.maximum, ">")):
                    if value is not None:
                        bound = self._bind(f"r{index}_{side}", value, columns[rule.column or ""])
                        parts.append(f"{column} {comparison} {bound}")
                return f"({' OR '.join(parts)})"
            case "accepted_values":
                items = [
                    self._bind(f"r{index}_{number}", value, columns[rule.column or ""])
                    for number, value in enumerate(rule.values)
                ]
                return f"{column} NOT IN ({', '.join(items)})"
            case "matches":
                pattern = self._bind(f"r{index}", rule.pattern, None)
                return f"NOT regexp_full_match(CAST({column} AS VARCHAR), {pattern})"
            case "sql":
                check_row_predicate(rule.expression or "")
                return f"NOT (\n{rule.expression}\n)"
            case _:
                raise InvalidInputError(f"{rule.kind} is not a row rule.", code="quality.unknown")

    def _bind(self, name: str, value: Any, column: Column | None) -> str:
        self._parameters[name] = value
        is_cast = column is not None and isinstance(value, str)
        return f"CAST(${name} AS {sql_type(column.type)})" if is_cast and column else f"${name}"

    def _apply(self, batch: pa.Table) -> JudgedBatch:
        if self.passes_through or self._query is None:
            return self._untouched(batch)
        connection = self._connection
        assert connection is not None
        connection.register("_headrace_source", batch.append_column(ORDINAL, self._ordinals(batch.num_rows)))
        try:
            if self._counts_query is not None:
                # Most batches violate nothing: then only the columns that rules name are looked at, and none is copied.
                found = connection.execute(self._counts_query, self._parameters or None).fetchall()
                if not any(found[0]):
                    return self._untouched(batch)
            judged = connection.sql(self._query, params=self._parameters or None).to_arrow_table()
            failed = self._failed_at_source(connection)
        except duckdb.Error as error:
            raise self._batch_error(error) from error
        refused: list[Refusal] = [(ordinal, "conversion", None, f"{name} does not convert") for ordinal, name in failed]
        is_failed = pc.is_valid(judged.column(_FAILED))
        late = judged.filter(is_failed).select([ORDINAL, _FAILED]).to_pydict() if pc.any(is_failed).as_py() else None
        if late:
            rows = zip(late[ORDINAL], late[_FAILED], strict=True)
            refused += [(ordinal, "conversion", None, f"{name} does not convert") for ordinal, name in rows]
        converted = len(refused)
        keep = pc.invert(is_failed)
        violations: dict[str, int] = {}
        for index, rule in self._row_rules:
            violated = pc.and_(judged.column(f"v{index}"), keep)
            count = pc.sum(violated).as_py() or 0
            if not count:
                continue
            violations[rule_key(index, rule)] = count
            if rule.on_violation is OnViolation.FAIL:
                raise self._rejected(rule, count)
            if rule.on_violation is OnViolation.QUARANTINE:
                hit = judged.filter(violated).column(ORDINAL).to_pylist()
                refused += [(ordinal, "rule", rule.label, f"{rule.label} was violated") for ordinal in hit]
                keep = pc.and_(keep, pc.invert(violated))
        names = _names(self._columns) + ([DELETED] if self._plan.deleted_when is not None else [])
        accepted = judged.select(names) if not refused else judged.filter(keep).select(names)
        counts = Counts(
            read=batch.num_rows,
            used=accepted.num_rows,
            filtered=batch.num_rows - judged.num_rows - len(failed),
            produced=accepted.num_rows,
            quarantined=len(refused) - converted,
            failed=converted,
        )
        return JudgedBatch(
            accepted=accepted,
            refused=refused_table(batch, refused),
            counts=counts,
            stats=self._stats(accepted, refused, violations),
        )

    def _untouched(self, batch: pa.Table) -> JudgedBatch:
        counts = Counts(read=batch.num_rows, used=batch.num_rows, produced=batch.num_rows)
        return JudgedBatch(batch, REFUSED.empty_table(), counts, self._stats(batch, (), {}))

    def _ordinals(self, count: int) -> pa.Array:
        """0 … count - 1; batches are alike in size, so the numbers are kept."""
        if len(self._numbers) < count:
            self._numbers = pa.array(range(count), pa.int64())
        return self._numbers.slice(0, count)

    def _failed_at_source(self, connection: duckdb.DuckDBPyConnection) -> list[tuple[int, str]]:
        """Rows that steps never saw because their text did not convert."""
        if not self._plan.source_is_text or not self._plan.steps:
            return []
        rows: list[tuple[int, str]] = connection.execute(self._failures_query).fetchall()
        return rows

    def _stats(self, accepted: pa.Table, refused: Sequence[Refusal], violations: dict[str, int]) -> dict[str, Any]:
        stats: dict[str, Any] = {}
        if violations:
            stats["violations"] = violations
        if self._null_columns:
            stats["nulls"] = {name: accepted.column(name).null_count for name in self._null_columns}
        if refused:
            stats["first_errors"] = [
                {"kind": kind, "message": reason} for _, kind, _, reason in refused[:_FIRST_ERRORS]
            ]
        return stats

    @staticmethod
    def _rejected(rule: Rule, count: int) -> PlatformError:
        return QualityRejectedError(
            f"The rule {rule.label} was violated by {count} rows of a batch, which was not committed. "
            "Set on_violation: quarantine to keep such rows aside."
        )

    @staticmethod
    def _batch_error(error: duckdb.Error) -> PlatformError:
        if isinstance(error, duckdb.OutOfMemoryException):
            return WorkFailedError("A transform needs more memory than it may use.", code="transform.memory")
        # The driver's text would show the value, so it is not passed on.
        return WorkFailedError(
            f"A transform or rule failed on a value ({type(error).__name__}); TRY_CAST gives NULL instead.",
            code="transform.failed",
        )


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0][:300]
