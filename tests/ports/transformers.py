"""The transformers that a suite runs on: in this process, and in a child that the whole module shares."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domain.ports.transformer import ITransformer
from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.transforms.bench import BenchTransformer, StepPlanner
from infrastructure.transforms.duckdb import DuckDBTransformer
from infrastructure.transforms.python import PythonHooks


@contextmanager
def one_bench() -> Iterator[Bench]:
    """A bench of one child."""
    bench = Bench(ChildLimits(400, 30.0), query_too_large, children=1)
    yield bench
    asyncio.run(bench.close())


def transformer_on(kind: str, bench: Bench, folder: Path | None = None, **more: Any) -> ITransformer:
    """The transformer of a kind."""
    hooks = PythonHooks(folder=folder, **more)
    inner = DuckDBTransformer(hooks=hooks)
    return inner if kind == "duckdb" else BenchTransformer(inner, StepPlanner(bench), bench, hooks, threads=1)
