"""Files of one path: their format, the columns that they share, and those that their folders tell."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import PlatformError
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.stores.files.store import FilesSource


async def read(folder: Path, path: str, **options: Any) -> tuple[SourcePlan, list[dict[str, Any]]]:
    """The plan of files and their rows, as they are read."""
    store, source = FilesSource(folder), SourceSpec(path=path, options=options)
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
        return plan, [row async for batch in reader.batches(None) for row in pa.table(batch.data).to_pylist()]


async def refused(folder: Path, path: str, **options: Any) -> tuple[str, str]:
    with pytest.raises(PlatformError) as caught:
        await FilesSource(folder).plan(SourceSpec(path=path, options=options), lo=None, limit=None)
    return caught.value.code, caught.value.message


def put(folder: Path, name: str, **columns: list[Any]) -> None:
    """Write a file of the format that its name tells."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), path)
        return
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_folders_that_name_columns_are_columns_or_left_out_as_the_source_says(kind: str, tmp_path: Path) -> None:
    put(tmp_path, f"part/year=2023/month=07/a.{kind}", id=[1, 2, 3])
    put(tmp_path, f"part/year=2024/month=__HIVE_DEFAULT_PARTITION__/b.{kind}", id=[4])
    put(tmp_path, f"part/year=20%2F24/month=x y/c.{kind}", id=[5])
    path = f"part/**/*.{kind}"

    code, message = await refused(tmp_path, path)
    plan, rows = await read(tmp_path, path, hive_partitioning=True)
    _, without = await read(tmp_path, path, hive_partitioning=False)

    assert code == "source.folders"
    assert f"The folders of part/year=20%2F24/month=x y/c.{kind} tell values of year, month" in message
    assert "options: {hive_partitioning: true}" in message
    assert dict(plan.columns) == {"id": "int64", "year": "string", "month": "string"}
    assert "year" not in plan.guessed
    told = {int(row["id"]): (row["year"], row["month"]) for row in rows}
    july = ("2023", "07")
    assert told == {1: july, 2: july, 3: july, 4: ("2024", None), 5: ("20/24", "x y")}
    assert sorted(int(row["id"]) for row in without) == [1, 2, 3, 4, 5]
    assert {*without[0]} == {"id"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_columns_of_folders_go_on_where_a_read_stopped(kind: str, tmp_path: Path) -> None:
    put(tmp_path, f"y=1/a.{kind}", id=[1, 2, 3])
    put(tmp_path, f"y=2/a.{kind}", id=[4])
    store, source = FilesSource(tmp_path), SourceSpec(path="*/*", options={"hive_partitioning": True})
    plan = await store.plan(source, lo=None, limit=None)

    async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
        rows = [row async for b in reader.batches(("0", "2")) for row in pa.table(b.data).to_pylist()]

    assert [(int(row["id"]), row["y"]) for row in rows] == [(3, "1"), (4, "2")]


async def test_columns_of_folders_have_the_types_that_are_declared(tmp_path: Path) -> None:
    put(tmp_path, "at=2024-01-31/n=07/a.parquet", id=[1])
    put(tmp_path, "at=2024-02-01/n=__HIVE_DEFAULT_PARTITION__/a.parquet", id=[2])
    types = {"at": "date", "n": "int64"}

    plan, rows = await read(tmp_path, "*/*/*", hive_partitioning=True, types=types)
    code, message = await refused(tmp_path, "*/*/*", hive_partitioning=True, types={"at": "int64"})

    assert dict(plan.columns) == {"id": "int64", **types}
    assert rows == [{"id": 1, "at": date(2024, 1, 31), "n": 7}, {"id": 2, "at": date(2024, 2, 1), "n": None}]
    assert (code, "at=2024-01-31/n=07/a.parquet tell of at is none of type int64" in message) == (
        "source.folders",
        True,
    )


async def test_folder_of_a_column_that_the_file_has_needs_no_word_and_the_file_counts(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.parquet", id=[1], y=[7])

    for options in ({}, {"hive_partitioning": True}):
        assert (await read(tmp_path, "*/*", **options))[1] == [{"id": 1, "y": 7}]


async def test_folders_of_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.parquet", id=[1])
    put(tmp_path, "z=1/a.parquet", id=[1])

    code, message = await refused(tmp_path, "*/*", hive_partitioning=True)

    assert code == "source.folders"
    assert "The folders of z=1/a.parquet name other columns than those of y=1/a.parquet" in message


async def test_table_of_a_folder_is_described_with_its_columns(tmp_path: Path) -> None:
    put(tmp_path, "y=1/a.parquet", id=[1])
    store = FilesSource(tmp_path)

    described = await store.describe((await store.tables())[0])

    assert (await store.tables()) == [TableName("y=1/a.parquet")]
    assert described is not None
    assert [column.name for column in described.columns] == ["id", "y"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_files_of_other_columns_are_refused_by_the_columns_before_the_first_row(
    kind: str, tmp_path: Path
) -> None:
    for number in range(20):  # More than are looked into when types are guessed.
        put(tmp_path, f"a{number:02}.{kind}", id=[1], kept=[2])
    put(tmp_path, f"b.{kind}", id=[1], more=[2], most=[3])

    code, message = await refused(tmp_path, f"*.{kind}")

    assert code == "source.columns_differ"
    assert (
        f"The columns of b.{kind} are not those of a00.{kind}: it has no kept and it has more, most besides." in message
    )
    assert "write a pattern" in message


@pytest.mark.parametrize(
    ("names", "path", "said"),
    [
        (["a.jsonl"], "a.jsonl", "a.jsonl is neither CSV nor Parquet by its name. Read are .csv, also with .gz"),
        (["a.csv", "b.json"], "*", "b.json is neither CSV nor Parquet"),
        (["a.parquet.gz"], "*", "a.parquet.gz is neither CSV nor Parquet"),
        (["a.csv", "b.parquet"], "*", "The path names CSV and Parquet files (a.csv, b.parquet)"),
        (["x/a.parquet"], "x/**", "x/** matches folders alone under"),
        (["x/a.parquet"], "x/**", "write a pattern such as x/**/*.parquet"),
        (["x/a.csv"], "x", "x is a folder under"),
        (["x/a.csv"], "x", "such as x/*.csv"),
        (["a.csv"], "b*", "No file matches b* under"),
        (["a.csv"], "a" * 300, "aaa"),
        (["a.csv"], f"{'a' * 300}/*", "aaa"),
    ],
)
async def test_path_that_names_nothing_readable_is_refused_by_what_it_names(
    names: list[str], path: str, said: str, tmp_path: Path
) -> None:
    for name in names:
        put(tmp_path, name, id=[1])

    code, message = await refused(tmp_path, path)

    assert said in message
    assert code in ("file.format", "file.not_found")


async def test_file_of_any_name_is_read_as_the_format_that_the_source_says(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", id=[1])
    store = FilesSource(tmp_path)

    plan = await store.plan(SourceSpec(path="a.txt", format="csv"), lo=None, limit=None)

    assert plan.columns == (("id", "int64"),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delimiter": ";"}, "options.delimiter is about CSV files, and these are Parquet"),
        ({"encoding": "utf-16"}, "options.encoding is about CSV"),
        ({"null_text": "NA"}, "options.null_text is about CSV"),
        ({"types": {"id": "string"}}, "options.types names id, whose type the Parquet files themselves tell"),
        ({"types": {"other": "string"}}, "The files have no column other"),
    ],
)
async def test_options_that_say_nothing_of_parquet_are_refused(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    put(tmp_path, "a.parquet", id=[1])

    assert said in (await refused(tmp_path, "a.parquet", **options))[1]
