"""Who may write into a data folder exchanges files for links and back, between each look and the opening after it:
what was judged is read, or nothing.
"""

import errno
import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import InvalidInputError, PlatformError, SourceChangedError, StoreUnavailableError
from domain.pipelines.spec import SourceSpec
from infrastructure.confinement import Confinement, real_path
from infrastructure.queries.parquet_footers import look_at_footer
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from infrastructure.stores.files.csv_sample import CsvSample
from infrastructure.stores.files.csv_text import CsvFile, Dialect
from infrastructure.stores.files.opening import FilePlace
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.stores.files.store import FilesSource

pytestmark = pytest.mark.line("36a")
KINDS = ["csv", "csv.gz", "parquet"]


def put(path: Path, column: str) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: pa.array([b"1", b"2"])}), path)  # Bytes, so that DuckDB looks at it too.
    else:
        text = f"{column}\n1\n2\n".encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@dataclass(frozen=True)
class Exchanging(Confinement):
    """Whenever it is asked, the file lies where it is looked for; before and after, what `act` makes of it."""

    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    first: int = 1
    asked: list[Path] = field(default_factory=list)

    def permits(self) -> Callable[[Path], bool]:
        permits = super().permits()

        def permitted(path: Path) -> bool:
            if path == self.base:
                return permits(path)
            self.asked.append(path)
            self.before()
            found = permits(path)
            if len(self.asked) >= self.first:
                self.after()
            return found

        return permitted


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("data", "outside"):
        (tmp_path / name).mkdir()
    return tmp_path / "data", tmp_path / "outside"


def exchanging(
    data: Path, other: Path, name: str, make: Callable[[Path], None], first: int = 1
) -> tuple[FilesSource, Path]:
    """A store in whose folder one name is the file when it is judged, and from the `first` time on something else
    whenever it is not.
    """
    path, kept = data / name, other / f"kept.{name}"
    put(path, "id")
    kept.hardlink_to(path)

    def before() -> None:
        path.unlink(missing_ok=True)
        path.hardlink_to(kept)

    def after() -> None:
        path.unlink()
        make(path)

    return FilesSource(data, Exchanging(data, (data,), before=before, after=after, first=first)), path


@pytest.mark.parametrize("kind", KINDS)
async def test_link_that_comes_after_the_look_is_not_followed(places: tuple[Path, Path], kind: str) -> None:
    data, outside = places
    secret = outside / f"secret.{kind}"
    put(secret, "hr_key")
    store, path = exchanging(data, outside, f"a.{kind}", lambda path: path.symlink_to(secret))

    with pytest.raises(PlatformError) as caught:
        await store.plan(SourceSpec(path=path.name), lo=None, limit=None)

    assert "hr_key" not in caught.value.message


@pytest.mark.parametrize("kind", KINDS)
async def test_run_reads_nothing_through_a_link_that_comes_after_the_look(places: tuple[Path, Path], kind: str) -> None:
    data, outside = places
    secret = outside / f"secret.{kind}"
    put(secret, "id")
    store, path = exchanging(data, outside, f"a.{kind}", lambda path: path.symlink_to(secret), first=2)
    plan = await FilesSource(data).plan(SourceSpec(path=path.name), lo=None, limit=None)
    os.utime(secret, ns=(0, path.stat().st_mtime_ns))  # By size and time it is what was planned.

    rows = []
    async with store.reader(SourceSpec(path=path.name), plan, plan.streams[0], batch_rows=10) as reader:
        with pytest.raises(PlatformError, match=r"exchanged|is not Parquet"):
            async for batch in reader.batches(None):
                rows.append(batch)

    assert rows == []


@pytest.mark.parametrize("kind", KINDS)
def test_folder_that_becomes_a_link_is_not_followed(places: tuple[Path, Path], kind: str) -> None:
    data, outside = places
    (data / "day").mkdir()
    put(data / f"day/a.{kind}", "id")
    put(outside / f"a.{kind}", "hr_key")

    def judge(real: Path) -> bool:
        (data / "day").rename(data / f"before{len(list(data.iterdir()))}")
        (data / "day").symlink_to(outside)
        return True

    place = FilePlace(data / f"day/a.{kind}", judge)
    file = ParquetData(place, "a") if kind == "parquet" else CsvFile(place, "a", Dialect())
    with pytest.raises(SourceChangedError, match="exchanged"):
        file.schema() if isinstance(file, ParquetData) else file.header()


def test_pipe_that_comes_after_the_look_keeps_nobody_waiting(places: tuple[Path, Path]) -> None:
    path = places[0] / "a.csv"
    put(path, "id")

    def judge(real: Path) -> bool:
        path.unlink()
        os.mkfifo(path)
        return True

    with pytest.raises(SourceChangedError):
        CsvFile(FilePlace(path, judge), "a", Dialect()).header()


def test_footer_is_looked_at_through_no_link(places: tuple[Path, Path]) -> None:
    data, outside = places
    put(outside / "a.parquet", "id")
    (data / "a.parquet").symlink_to(outside / "a.parquet")

    assert not look_at_footer(str(data / "a.parquet"))
    assert look_at_footer(str(outside / "a.parquet"))


async def test_file_with_other_columns_that_comes_meanwhile_is_told(places: tuple[Path, Path]) -> None:
    data, outside = places
    put(data / "a.csv", "id")
    put(outside / "b.csv", "other")
    asked = []

    def judge(real: Path) -> bool:
        asked.append(real)
        if len(asked) > 2:  # Behind the two openings for the header.
            (data / "a.csv").write_bytes((outside / "b.csv").read_bytes())
        return True

    with pytest.raises(SourceChangedError, match="exchanged"):
        CsvSample.of([CsvFile(FilePlace(data / "a.csv", judge), "a", Dialect())], {})


def test_what_is_a_link_at_one_look_and_none_at_the_next_leads_nowhere_or_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("a")
    readlink, faults = os.readlink, [OSError(errno.EINVAL, "Invalid argument")]

    def flickering(path: str, *, dir_fd: int | None = None) -> str:
        if faults:
            raise faults.pop()
        return readlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", flickering)
    assert real_path(tmp_path / "b") == real_path(tmp_path / "a")
    faults += [OSError(errno.EINVAL, "Invalid argument")] * 100
    assert real_path(tmp_path / "b") == Path("/")


async def test_links_that_stay_inside_are_read_as_before(places: tuple[Path, Path]) -> None:
    data, _ = places
    for kind in KINDS:
        put(data / f"real.{kind}", "id")
        (data / f"link.{kind}").symlink_to(f"real.{kind}")
        plan = await FilesSource(data).plan(SourceSpec(path=f"link.{kind}"), lo=None, limit=None)
        assert [name for name, _ in plan.columns] == ["id"]
        async with FilesSource(data).reader(
            SourceSpec(path=f"link.{kind}"), plan, plan.streams[0], batch_rows=10
        ) as reader:
            assert [pa.table(batch.data).num_rows async for batch in reader.batches(None)] == [2]
    with pytest.raises(InvalidInputError) as caught:
        (data / "out.csv").symlink_to(places[1] / "a.csv")
        put(places[1] / "a.csv", "id")
        await FilesSource(data).plan(SourceSpec(path="out.csv"), lo=None, limit=None)
    assert caught.value.code == "path.forbidden"


async def test_duckdb_file_that_is_exchanged_for_a_link_and_back_is_not_used(places: tuple[Path, Path]) -> None:
    data, outside = places
    path, kept, secret = data / "a.duckdb", outside / "kept.duckdb", outside / "secret.duckdb"
    for place in (path, secret):
        duckdb.connect(place).close()
    kept.hardlink_to(path)

    def before() -> None:
        path.unlink()
        path.hardlink_to(kept)

    def after() -> None:
        path.unlink()
        path.symlink_to(secret)

    exchanging = Exchanging(data, (data,), before=before, after=after)
    exchanged = DuckDBFile(DuckDBOptions(path, confinement=exchanging))
    with pytest.raises((StoreUnavailableError, InvalidInputError)):
        await exchanged.open()
    exchanging.asked.clear()
    is_at_last = replace(exchanging, after=lambda: after() if len(exchanging.asked) < 4 else None)
    with pytest.raises(StoreUnavailableError, match="exchanged"):
        await DuckDBFile(DuckDBOptions(path, confinement=is_at_last)).open()
    before()
    plain = DuckDBFile(DuckDBOptions(path, confinement=Confinement(data, (data,))))
    await plain.open()
    await plain.close()
