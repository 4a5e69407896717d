"""What a source holds and no value of Python, no text or no name is: told as it is, or refused by its place, never an
error of ours.
"""

import asyncio
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from application.answers import AnswerLimits
from application.pipelines.preview import Preview
from application.pipelines.spec_tests import SpecTester
from domain.errors import InvalidInputError, SchemaMismatchError
from domain.pipelines.spec import PipelineSpec
from domain.pipelines.steps import SqlStep
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts, Measures
from domain.quality.rules import OnViolation, Rule
from domain.stores.table import Column
from entrypoints.answers.pipelines import preview_body
from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.confinement import Confinement
from infrastructure.stores.files.matches import matches, tables_under
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.tabular.json_rows import encoded
from infrastructure.transforms import in_child
from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes
from infrastructure.transforms.duckdb import DuckDBTransformer
from infrastructure.transforms.newest import newest_of

_LIMITS = AnswerLimits(cell_bytes=1000, answer_bytes=100_000)
_YEAR_30000 = 884_541_340_800_000_000


def _integers(values: list[int | None], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)


def _texts(*values: bytes) -> pa.Array:
    """Texts of these bytes, whatever they are."""
    ends = [sum(map(len, values[:count])) for count in range(len(values) + 1)]
    buffers = [None, pa.py_buffer(struct.pack(f"<{len(ends)}i", *ends)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _shown(column: pa.Array) -> list[object]:
    preview = Preview((("v", "…"),), (pa.table({"v": column}),), Counts(), Measures())
    return [row["v"] for row in preview_body(preview, _LIMITS)["rows"]]


@pytest.mark.line("29")
@pytest.mark.parametrize(
    ("kind", "values", "shown"),
    [
        (pa.date32(), [2**31 - 1, 0, None], ["5881580-07-11", "1970-01-01", None]),
        (pa.timestamp("us"), [_YEAR_30000, 0], ["30000-01-01 00:00:00.000000", "1970-01-01 00:00:00"]),
        (
            pa.timestamp("us", "UTC"),
            [_YEAR_30000, 0],
            ["30000-01-01 00:00:00.000000+00:00", "1970-01-01 00:00:00+00:00"],
        ),
        (pa.time64("us"), [2**63 - 1, 0], ["2562047788:00:54.775807", "00:00:00"]),
    ],
)
def test_a_preview_shows_times_that_python_has_not(
    kind: pa.DataType, values: list[int | None], shown: list[str | None]
) -> None:
    assert _shown(_integers(values, kind)) == shown


@pytest.mark.line("29")
def test_a_preview_says_which_values_it_cannot_show() -> None:
    twice = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    far = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), _integers([2**31 - 1], pa.date32()))
    for column in (twice, far, _texts(b"\xff")):
        assert _shown(column) == ["… (a value that cannot be shown)"]
    assert _shown(pa.array([{"x": 1}])) == [{"x": 1}]


@pytest.mark.line("29")
@pytest.mark.parametrize(
    ("kind", "newest", "told"),
    [
        (pa.timestamp("us"), 2**63 - 1, "9999-12-31T23:59:59.999999"),
        (pa.timestamp("us", "UTC"), _YEAR_30000, "9999-12-31T23:59:59.999999+00:00"),
        (pa.timestamp("us"), -(2**63), "0001-01-01T00:00:00"),
        (pa.date32(), 2**31 - 1, "9999-12-31"),
        (pa.date32(), -(2**31), "0001-01-01"),
        (pa.date32(), 1, "1970-01-02"),
        (pa.date32(), None, None),
    ],
)
def test_freshness_is_measured_by_times_that_python_has_not(
    kind: pa.DataType, newest: int | None, told: str | None
) -> None:
    assert newest_of(pa.chunked_array([_integers([newest], kind)])) == told


@pytest.mark.line("29")
def test_the_end_of_a_day_goes_through_the_child_and_what_is_no_text_does_not() -> None:
    clock = _integers([86_400_000_000], pa.time64("us"))
    inside = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.StructArray.from_arrays([clock], ["t"]))
    entries = pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), clock, clock)
    rows = pa.table({"plain": clock, "inside": inside, "entries": entries, "text": pa.array(["ü"])})
    assert of_bytes(as_bytes(rows)).column("plain").chunk(0).view(pa.int64()).to_pylist() == [86_400_000_000]
    with pytest.raises(pa.ArrowInvalid):
        of_bytes(as_bytes(rows.append_column("other", _texts(b"\xff"))))


@pytest.mark.line("29")
def test_a_child_judges_far_times_and_refuses_what_is_no_text() -> None:
    def judged(column: pa.Array, kind: str) -> in_child.JudgedBytes:
        rule = Rule("freshness", OnViolation.WARN, column="v", max_age=timedelta(hours=1))
        plan = TransformPlan((Column("v", kind),), (SqlStep("select * from batch"),), (rule,) if kind == "date" else ())
        return in_child.judge(plan, in_child.EngineLimits(200, 1), as_bytes(pa.table({"v": column})), keeps_rows=True)

    assert judged(_integers([2**31 - 2], pa.date32()), "date").measures.newest == {"v": "9999-12-31"}
    assert of_bytes(judged(_integers([86_400_000_000], pa.time64("us")), "time").accepted).num_rows == 1
    assert of_bytes(judged(_texts("ü".encode()), "string").accepted).to_pylist() == [{"v": "ü"}]
    with pytest.raises(SchemaMismatchError) as refused:
        judged(_texts(b"\xff"), "string")
    assert refused.value.code == "value.encoding"


_NESTED: dict[str, Callable[[pa.Array], pa.Array]] = {
    "plain": lambda texts: texts,
    "dictionary": lambda texts: pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), texts),
    "list": lambda texts: pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts),
    "struct": lambda texts: pa.StructArray.from_arrays([texts], ["x"]),
    "map": lambda texts: pa.MapArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array(["a", "b"]), texts),
}


@pytest.mark.line("29")
@pytest.mark.parametrize("shape", _NESTED)
def test_a_text_of_parquet_that_is_not_utf8_is_refused_by_its_column(tmp_path: Path, shape: str) -> None:
    for name, texts in (("good", _texts(b"a", "ü\0".encode())), ("bad", _texts(b"a", b"\xff"))):
        pq.write_table(pa.table({"n": [1, 2], "v": _NESTED[shape](texts)}), tmp_path / name)
    assert sum(batch.num_rows for batch in ParquetData(tmp_path / "good", "good").batches(10)) == 2
    with pytest.raises(SchemaMismatchError, match="Column v of bad holds a text that is not UTF-8") as refused:
        list(ParquetData(tmp_path / "bad", "bad").batches(10))
    assert refused.value.code == "value.encoding"


@pytest.mark.line("29")
def test_a_refused_row_with_what_is_no_text_is_told_by_its_column() -> None:
    assert encoded(pa.table({"v": _texts("ü".encode())})) == ['{"v": "ü"}']
    with pytest.raises(SchemaMismatchError, match="column v") as refused:
        encoded(pa.table({"v": _texts(b"\xff")}))
    assert refused.value.code == "value.encoding"


@pytest.mark.line("29", "38")
def test_a_name_of_a_file_that_is_not_utf8_is_told_and_in_nobodys_way(tmp_path: Path) -> None:
    here = os.fsencode(tmp_path)
    for name in (b"Z\xfcrich.csv", "Zürich.csv".encode(), b"k=\xff/a.csv"):
        path = Path(os.fsdecode(os.path.join(here, name)))
        path.parent.mkdir(exist_ok=True)
        path.write_text("id\n1\n")
    confinement = Confinement(tmp_path, (tmp_path,))

    assert tables_under(tmp_path, confinement) == ["Zürich.csv"]
    assert [path.name for path in matches(tmp_path, "Zü*.csv", confinement)] == ["Zürich.csv"]
    for pattern, shown in (("*.csv", r"Z\xfcrich.csv"), ("**/a.csv", r"k=\xff/a.csv")):
        with pytest.raises(InvalidInputError) as refused:
            matches(tmp_path, pattern, confinement)
        assert refused.value.code == "file.name"
        assert shown in refused.value.message


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with folders in each other, of which the last have paths that are too long for a system."""
    root, here = tmp_path / "root", Path.cwd()
    root.mkdir()
    try:
        os.chdir(root)
        for name in ["d"] * 1200 + ["e" * 200] * 12:
            Path(name).mkdir()
            os.chdir(name)
            if len(name) > 1:
                Path("lost.csv").write_text("id\n1\n")
        os.chdir(here)
        yield root
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", root], check=True)  # Python's own way goes no deeper than it may call itself.


@pytest.mark.line("29")
def test_folders_in_folders_and_links_to_links_without_end_are_in_nobodys_way(tmp_path: Path, deep: Path) -> None:
    (deep / "good.csv").write_text("id\n1\n")
    for number in range(1200):
        (deep / f"l{number}").symlink_to(f"l{number + 1}")
    confinement = Confinement(tmp_path, (tmp_path,))

    honest = deep.joinpath(*["d"] * 50, "there.csv")
    honest.write_text("id\n1\n")
    listed = [honest.relative_to(deep).as_posix(), "good.csv"]
    assert tables_under(deep, confinement) == listed
    assert [path.relative_to(deep).as_posix() for path in matches(deep, "**/*.csv", confinement)] == listed
    confinement.check(deep.joinpath(*["d"] * 1200))
    with pytest.raises(InvalidInputError) as refused:
        matches(deep, "l0", confinement)
    assert refused.value.code == "path.forbidden"


@pytest.mark.line("29")
async def test_a_test_of_a_document_takes_far_times() -> None:
    document = {
        "pipeline": "p",
        "source": {"connection": "default", "table": "t"},
        "transform": [{"cast": {"v": "date"}}],
        "destination": {"table": "d"},
        "tests": [{"given": [{"v": "30000-01-01"}], "expect": [{"v": "30000-01-01"}]}],
    }
    [outcome] = await SpecTester(DuckDBTransformer()).run([PipelineSpec.from_document(document)])
    assert outcome.problems == ()


@pytest.mark.line("29")
async def test_a_footer_that_ends_the_process_which_asks_of_it_ends_a_child(tmp_path: Path) -> None:
    good, bad, odd = (tmp_path / f"{name}.parquet" for name in ("good", "bad", "odd"))
    pq.write_table(pa.table({"name": [[1], [2]]}), good, store_schema=False)
    # Not optional any more, the column has fewer levels than its statistics count.
    bad.write_bytes(good.read_bytes().replace(b"\x35\x02\x18\x04name", b"\x35\x00\x18\x04name"))
    odd.write_bytes(good.read_bytes().replace(b"name", b"\xff\xfe\xff\xfe"))
    bench = Bench(ChildLimits(400, 5), query_too_large, children=1)
    try:
        for path in (good, bad, odd, good):
            data = ParquetData(path, path.name)
            if path == good:
                await asyncio.to_thread(data.check_footer, bench)
                continue
            with pytest.raises(InvalidInputError) as refused:
                await asyncio.to_thread(data.check_footer, bench)
            assert refused.value.code == "file.malformed"
    finally:
        await bench.close()
    with pytest.raises(InvalidInputError) as refused:
        ParquetData(odd, "odd").columns()
    assert refused.value.code == "file.malformed"
