"""What a run left that failed or was cancelled, and a next run that was asked for something else: rows land once, and
what succeeded has all of them.
"""

from pathlib import Path

import pyarrow as pa
import pytest

from domain.runs.run import RunState
from domain.stores.table import TableName
from tests.e2e.inside import Inside, inside
from tests.e2e.projects import new_project

REJECTING = "quality: [{rule: row_count, max: 0}]\n"
WITH_CURSOR = "connection: default, table: {}, key: [k], cursor: {{column: n}}"


async def filled(own: Inside, table: str, numbers: range) -> None:
    rows = pa.table({"k": pa.array(numbers, pa.int64()), "n": pa.array(numbers, pa.int64())})
    await (await own.store()).write(TableName(table), [rows])


async def numbers(own: Inside) -> list[int]:
    return sorted(row["k"] for row in await own.rows("t"))


async def rejected(own: Inside, source: str, destination: str, **asked: object) -> None:
    """A run that stages everything and is refused by a rule, which is taken away again."""
    await own.pipeline("p", source, destination, f"{REJECTING}run: {{batch_rows: 7}}\n")
    assert (await own.ran("p", **asked)).state is RunState.FAILED
    await own.pipeline("p", source, destination, "run: {batch_rows: 7}\n")


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("mode", ["append", "merge, key: [k]"])
async def test_full_refresh_that_was_given_up_leaves_the_next_run_as_it_was(tmp_path: Path, mode: str) -> None:
    source, destination = WITH_CURSOR.format("s"), f"table: t, mode: {mode}"
    async with inside(new_project(tmp_path / "project")) as own:
        await filled(own, "s", range(20))
        await own.pipeline("p", source, destination)
        await own.report("p")
        await rejected(own, source, destination, full_refresh=True)
        await filled(own, "s", range(20, 25))

        report = await own.report("p")

        assert (report["adopted"], report["counts"]["used"]) == (False, 5)
        assert await numbers(own) == [*range(25)]
        assert (await own.report("p", full_refresh=True))["counts"]["used"] == 25
        assert await numbers(own) == [*range(25)]


@pytest.mark.invariant("D1")
async def test_full_refresh_from_another_source_that_was_given_up_gives_it_no_watermark(tmp_path: Path) -> None:
    destination = "table: t, mode: append"
    async with inside(new_project(tmp_path / "project")) as own:
        await filled(own, "s", range(100, 120))
        await filled(own, "other", range(20))
        await own.pipeline("p", WITH_CURSOR.format("s"), destination)
        await own.report("p")
        for _ in range(2):  # Once more, beside what the first one left.
            await rejected(own, WITH_CURSOR.format("other"), destination, full_refresh=True)

        refused = await own.ran("p")

        assert refused.error is not None
        assert refused.error.code == "run.position_conflict"
        await own.report("p", abandon=True)  # Below the watermark of the other source.
        assert await numbers(own) == [*range(20), *range(100, 120)]


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("mode", ["replace", "merge, key: [k], publish: run"])
async def test_limit_of_a_run_that_was_given_up_is_not_the_next_ones(tmp_path: Path, mode: str) -> None:
    source, destination = "connection: default, table: s, key: [k]", f"table: t, mode: {mode}"
    async with inside(new_project(tmp_path / "project")) as own:
        await filled(own, "s", range(20))
        await rejected(own, source, destination, limit=8)

        report = await own.report("p")

        assert (report["adopted"], report["counts"]["used"]) == (False, 20)
        assert await numbers(own) == [*range(20)]


@pytest.mark.invariant("D1")
async def test_same_run_that_was_given_up_is_completed(tmp_path: Path) -> None:
    source, destination = "connection: default, table: s, key: [k]", "table: t, mode: replace"
    async with inside(new_project(tmp_path / "project")) as own:
        await filled(own, "s", range(20))
        await rejected(own, source, destination)

        assert (await own.report("p"))["adopted"]
        assert await numbers(own) == [*range(20)]
