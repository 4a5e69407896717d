"""A Python step that ends the program, hangs or gives nonsense ends its own run by name: `up` and its loop go on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError, PlatformError, WorkFailedError
from domain.pipelines.steps import PythonStep, SqlStep
from domain.ports.transformer import ITransformer, TransformPlan
from domain.stores.table import Column
from infrastructure.bench.bench import Bench
from infrastructure.transforms.python import PythonHooks
from tests.ports.transformers import one_bench, transformer_on

pytestmark = pytest.mark.line("36a")

_ROWS = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["a", "b", "c"]})
_SOURCE = (Column("id", "int64"), Column("name", "string"))
_PLACE = "rows.schema.get_field_index('_headrace_ordinal'), '_headrace_ordinal'"
_HOOKS = f"""
import asyncio, sys
import pyarrow as pa, pyarrow.compute as pc
class Own(BaseException): pass
def exits(rows): sys.exit(3)
def interrupts(rows): raise KeyboardInterrupt
def closes(rows): raise GeneratorExit
def cancels(rows): raise asyncio.CancelledError
def own(rows): raise Own('a secret value')
def late(rows): return sys.exit(3) if rows.num_rows else rows
def nothing(rows): return None
def twice(rows): return rows.append_column('id', rows['id'])
def two_places(rows): return rows.append_column('_headrace_ordinal', rows['_headrace_ordinal'])
def words(rows): return rows.set_column({_PLACE}, pa.array(['x'] * rows.num_rows, pa.string()))
def lists(rows): return rows.set_column({_PLACE}, pa.array([[1]] * rows.num_rows, pa.list_(pa.int8())))
def bytes_as_text(rows):
    spoilt = pa.array([b'\\xff'] * rows.num_rows, pa.binary())
    return rows.set_column(1, 'name', pa.Array.from_buffers(pa.string(), rows.num_rows, spoilt.buffers()))
def kept(rows): return rows
def floats(rows): return rows.set_column({_PLACE}, pc.cast(rows['_headrace_ordinal'], pa.float64()))
"""
_NAMES = [
    *("exits", "interrupts", "closes", "cancels", "own", "late", "nothing"),
    *("twice", "two_places", "words", "lists", "bytes_as_text"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with one_bench() as bench:
        yield bench


@pytest.fixture(params=["duckdb", "child"])
def transformer(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> ITransformer:
    (tmp_path / "own.py").write_text(_HOOKS)
    return transformer_on(request.param, bench, tmp_path)


async def _applied(transformer: ITransformer, hook: str) -> Any:
    steps = (SqlStep("select *, upper(name) as loud from batch"), PythonStep(f"local.own:{hook}"))
    async with transformer.prepare(TransformPlan(source=_SOURCE, steps=steps)) as prepared:
        return pa.table((await prepared.apply(_ROWS)).accepted)


async def test_python_steps_that_end_the_program_or_give_nonsense_fail_by_name(transformer: ITransformer) -> None:
    for name in _NAMES:
        with pytest.raises(PlatformError) as failed:
            await _applied(transformer, name)
        assert (type(failed.value), failed.value.code) == (WorkFailedError, "transform.python"), name
        assert f"local.own:{name} " in failed.value.message, name
        assert "secret" not in failed.value.message
    for name in ("kept", "floats"):
        assert (await _applied(transformer, name)).num_rows == 3


@pytest.mark.parametrize(
    "line", ["import sys; sys.exit(4)", "raise KeyboardInterrupt", "class A(BaseException): pass\nraise A"]
)
async def test_file_that_ends_the_program_when_it_is_imported_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(line)
    with pytest.raises(InvalidInputError, match=r"cannot be imported") as refused:
        await PythonHooks(folder=tmp_path).loaded(["local.script:main"])
    assert refused.value.code == "transform.python_unknown"


async def test_file_that_takes_long_to_import_holds_nobody_else_up(transformer: ITransformer, tmp_path: Path) -> None:
    going_on = tmp_path / "going_on"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nend = time.monotonic() + 5\nwhile not os.path.exists({str(going_on)!r}):\n"
        "    assert time.monotonic() < end\n    time.sleep(0.005)\ndef step(rows): return rows\n"
    )

    async def somebody_else() -> None:
        await asyncio.sleep(0.02)
        going_on.touch()

    other = asyncio.create_task(somebody_else())
    plan = TransformPlan(source=_SOURCE, steps=(SqlStep("select * from batch"), PythonStep("local.slow:step")))
    async with transformer.prepare(plan) as prepared:
        assert pa.table((await prepared.apply(_ROWS)).accepted).num_rows == 3
    await other
