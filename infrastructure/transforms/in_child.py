"""What a child does with the transforms of a plan: compiles them once, then judges batch after batch."""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from domain.pipelines.steps import PythonStep
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts, Measures
from domain.stores.table import ORDINAL, Column
from infrastructure.bench.asking import ask
from infrastructure.tabular.arrow import not_utf8, to_table
from infrastructure.threads import OneThread
from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes
from infrastructure.transforms.duckdb import DuckDBTransform
from infrastructure.transforms.engine import for_many_parts, locked_down
from infrastructure.transforms.failures import TOO_LARGE
from infrastructure.transforms.python import Hook
from infrastructure.transforms.returned import Returnable
from infrastructure.transforms.rules import looked_at
from infrastructure.transforms.runs import runs_of
from infrastructure.transforms.sizes import has_many_parts, keeps_size


@dataclass(frozen=True)
class EngineLimits:
    """What DuckDB may take of what the child may take."""

    memory_mb: int
    threads: int


@dataclass(frozen=True)
class Described:
    """What is known of a plan once it is compiled: the columns of accepted rows under their names in the steps, which
    of the source's columns its rules look at, and whether its steps make nothing much larger than a row.
    """

    columns: tuple[Column, ...]
    looks_at: tuple[str, ...]
    keeps_size: bool


@dataclass(frozen=True)
class JudgedBytes:
    """A judged batch on its way back."""

    accepted: bytes
    refused: bytes
    counts: Counts
    measures: Measures


class AskedHook(Hook):
    """A Python function, which runs in the parent."""

    def call(self, rows: pa.Table, ordinals: pa.Array, _: pa.Table) -> tuple[pa.Table, pa.Array]:
        given = as_bytes(rows.append_column(ORDINAL, ordinals)).to_pybytes()
        returned = of_bytes(ask(self.name, given))
        return returned.drop_columns([ORDINAL]), returned.column(ORDINAL).combine_chunks()


_compiled: dict[bytes, DuckDBTransform] = {}
_engines: dict[tuple[EngineLimits, bool], duckdb.DuckDBPyConnection] = {}


def describe(plan: TransformPlan, limits: EngineLimits) -> Described:
    """Compile a plan.

    Raises:
        InvalidInputError: a step or rule is wrong.
    """
    transform = _transform(plan, limits)
    return Described(tuple(transform.columns), looked_at(plan), keeps_size(plan))


def judge(plan: TransformPlan, limits: EngineLimits, batch: pa.Buffer, keeps_rows: bool) -> JudgedBytes:
    """Convert, transform and judge one batch; without `keeps_rows` only its counts and measures come back."""
    transform = _transform(plan, limits)
    try:
        judged = transform.judge(_sound(batch))
    except Exception as error:
        _forget()
        # Of what it is told that a Python function gave, this process is no cause.
        if getattr(error, "code", None) == TOO_LARGE and isinstance(error.__cause__, duckdb.Error):
            raise MemoryError from error
        raise
    accepted, refused = (
        as_bytes(to_table(rows) if keeps_rows else to_table(rows).slice(0, 0)).to_pybytes()
        for rows in (judged.accepted, judged.refused)
    )
    return JudgedBytes(accepted, refused, judged.counts, judged.measures)


def _sound(batch: pa.Buffer) -> pa.Table:
    """The rows of a source, which may hold what no text is.

    Raises:
        SchemaMismatchError: one does (`value.encoding`).
    """
    try:
        return of_bytes(batch)
    except pa.ArrowInvalid as error:
        raise not_utf8("A column of the source") from error


def _transform(plan: TransformPlan, limits: EngineLimits) -> DuckDBTransform:
    """The plan's transform: the one that was used last is kept, as batches of one plan follow each other."""
    key = hashlib.sha256(pickle.dumps((plan, limits))).digest()
    found = _compiled.get(key)
    if found is None:
        for other in _compiled.values():
            other.close()
        _compiled.clear()
        engine = partial(_connected, limits, has_many=has_many_parts(plan))
        found = DuckDBTransform(plan, OneThread("transform"), _runs(plan), engine=engine)
        try:
            found.begin()
        except BaseException:
            found.close()
            _forget()
            raise
        _compiled[key] = found
    return found


def _connected(limits: EngineLimits, *, has_many: bool) -> duckdb.DuckDBPyConnection:
    """A connection of its own to the engine, which takes longer to start than a plan to compile. One sees nothing of
    another.
    """
    kind = (limits, has_many)
    if kind not in _engines:
        _forget()
        _engines[kind] = (for_many_parts if has_many else locked_down)(f"{limits.memory_mb}MB", limits.threads)
    return _engines[kind].cursor()


def _forget() -> None:
    """Let the engine go: whatever failed in it may have left it unusable."""
    for kept in (*_compiled.values(), *_engines.values()):
        kept.close()
    _compiled.clear()
    _engines.clear()


def _runs(plan: TransformPlan) -> Sequence[Any]:
    return [(run, _asked(step) if step else None) for run, step in runs_of(plan)]


def _asked(step: PythonStep) -> AskedHook:
    return AskedHook(step.name, _not_here, {}, Returnable())


def _not_here(_: pa.Table) -> pa.Table:
    raise AssertionError("A Python step runs in the parent.")
