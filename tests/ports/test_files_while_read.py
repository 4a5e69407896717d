"""Files that are written to, cut off or replaced while they are read: rows of what was planned, or a run
that says so.
"""

import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import SourceChangedError
from domain.pipelines.spec import SourceSpec
from infrastructure.stores.files.store import FilesSource

ROWS = 4000
KINDS = ["csv", "csv.gz", "parquet"]


def put(path: Path, letter: str) -> None:
    """A file that is read in several parts, as it was written a while ago."""
    table = pa.table({"id": range(ROWS), "text": [letter * 1000] * ROWS})
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=ROWS // 8, use_dictionary=False, compression="NONE")
    else:
        text = "id,text\n" + "".join(f"{row},{letter * 1000}\n" for row in range(ROWS))
        with pa.output_stream(str(path), compression="detect") as file:
            file.write(text.encode())
    os.utime(path, (1e9, 1e9))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes()[:100])


def write_over(path: Path) -> None:
    other = path.with_name(f"other.{path.name}")
    put(other, "b")
    with path.open("r+b") as file:
        file.write(other.read_bytes())


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 7 // 8)


def replace(path: Path) -> None:
    other = path.with_name(f"other.{path.name}")
    put(other, "b")
    other.replace(path)


async def read(path: Path, meanwhile: Callable[[Path], None]) -> list[dict[str, Any]]:
    """Read a file, and do something to it after the first rows."""
    store, source = FilesSource(path.parent), SourceSpec(path=path.name)
    plan, rows = await store.plan(source, lo=None, limit=None), list[dict[str, Any]]()
    async with store.reader(source, plan, plan.streams[0], batch_rows=100, batch_bytes=2**20) as reader:
        async with aclosing(reader.batches(None)) as batches:
            async for batch in batches:
                if not rows:
                    meanwhile(path)
                rows += pa.table(batch.data).to_pylist()
    return rows


@pytest.mark.parametrize("meanwhile", [grow, write_over, cut_off])
@pytest.mark.parametrize("kind", KINDS)
async def test_file_that_is_written_to_while_it_is_read_ends_the_run(
    kind: str, meanwhile: Callable[[Path], None], tmp_path: Path
) -> None:
    put(tmp_path / f"a.{kind}", "a")

    with pytest.raises(SourceChangedError, match=rf"The file a\.{kind} changed after the read set was planned"):
        await read(tmp_path / f"a.{kind}", meanwhile)


@pytest.mark.parametrize("meanwhile", [replace, Path.unlink])
@pytest.mark.parametrize("kind", KINDS)
async def test_file_that_another_one_takes_the_place_of_is_read_to_its_end(
    kind: str, meanwhile: Callable[[Path], None], tmp_path: Path
) -> None:
    put(tmp_path / f"a.{kind}", "a")

    rows = await read(tmp_path / f"a.{kind}", meanwhile)

    assert [(int(row["id"]), row["text"][:1]) for row in rows] == [(number, "a") for number in range(ROWS)]


async def test_csv_that_is_opened_once_more_for_a_long_row_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    put(path, "a")
    with path.open("a") as file:
        file.write(f"{ROWS},{'a' * 700_000}\n")
    os.utime(path, (1e9, 1e9))

    assert len(await read(path, lambda path: None)) == ROWS + 1
    with pytest.raises(SourceChangedError):
        await read(path, replace)
