"""A preview reads few bytes at a time, and again where a row is larger: then it is the only one that does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from application.pipelines.preview import Preview
from domain.errors import UnavailableError, WorkFailedError
from tests.e2e.inside import ME, Inside, inside
from tests.e2e.projects import write

pytestmark = pytest.mark.line("29")
_MIB = 1024 * 1024


@pytest.fixture
async def here(project: Path) -> AsyncIterator[Inside]:
    write(project, "data/large.csv", f"id,v\n1,a\n2,{'x' * (5 * _MIB)}\n3,b\n")
    write(project, "data/small.csv", "id,v\n" + "".join(f"{number},{'y' * 100_000}\n" for number in range(60)))
    write(project, "data/huge.csv", f"id,v\n1,{'x' * (17 * _MIB)}\n")
    async with inside(project) as made:
        await made.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
        for name in ("large", "small", "huge"):
            await made.pipeline(name, f"connection: landing, path: {name}.csv", f"table: {name}")
        yield made


async def _previewed(here: Inside, name: str, limit: int = 10) -> Preview:
    spec = await here.use_cases.states.spec_of(ME, name)
    return await here.use_cases.previewer.preview(ME, spec, limit=limit)


async def test_rows_of_each_size_are_shown_as_before(here: Inside) -> None:
    large, small = await _previewed(here, "large"), await _previewed(here, "small", 100)

    lengths = [len(row["v"]) for batch in large.batches for row in batch.to_pylist()]  # type: ignore[attr-defined]
    assert (lengths, large.counts.read) == ([1, 5 * _MIB, 1], 3)
    assert (sum(batch.num_rows for batch in small.batches), small.counts.read) == (60, 60)
    assert max(batch.nbytes for batch in small.batches) <= 2 * _MIB
    with pytest.raises(WorkFailedError, match="16,777,216") as caught:
        await _previewed(here, "huge")
    assert caught.value.code == "source.row_too_large"


async def test_another_preview_of_large_rows_waits_and_one_of_small_rows_does_not(here: Inside) -> None:
    async with here.use_cases.previewer.turns.large(ME):
        waiting = asyncio.create_task(_previewed(here, "large"))
        assert (await _previewed(here, "small")).counts.read == 10
        assert not waiting.done()

    assert (await waiting).counts.read == 3


async def test_it_is_turned_away_after_a_while(project: Path, here: Inside) -> None:
    async with here.use_cases.previewer.turns.large(ME):
        here.use_cases.previewer.turns._patience_seconds = 0.01
        with pytest.raises(UnavailableError, match="other large rows") as caught:
            await _previewed(here, "large")

    assert caught.value.code == "worker.busy"
