"""CSV files: what is guessed of them changes no value, and what is wrong with one is told by its place."""

import bz2
import gzip
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from application.loads.landing import transform_plan
from domain.errors import InvalidInputError, NotFoundError, PlatformError
from domain.loads.read_set import SourcePlan
from domain.pipelines.spec import PipelineSpec, SourceSpec
from domain.ports.data_store import JudgedBatch
from domain.ports.transformer import TransformPlan
from domain.stores.table import Column
from entrypoints.documents.file_options import ENCODINGS
from infrastructure.stores.files.store import FilesSource
from infrastructure.transforms.duckdb import DuckDBTransformer

BLOCK = 4 * 1024 * 1024


async def planned(folder: Path, *, path: str = "*.csv", **options: Any) -> SourcePlan:
    store = FilesSource(folder)
    return await store.plan(SourceSpec(path=path, options=options), lo=None, limit=None)


async def loaded(folder: Path, **options: Any) -> tuple[SourcePlan, list[dict[str, Any]]]:
    """The plan of the CSV files in a folder, and their rows as a destination would get them."""
    store, source = FilesSource(folder), SourceSpec(path="*.csv", options=options)
    plan = await store.plan(source, lo=None, limit=None)
    spec = PipelineSpec.from_document(
        {"pipeline": "p", "source": {"path": "*.csv"}, "destination": {"table": "t", "columns": "source"}}
    )
    found: list[dict[str, Any]] = []
    async with (
        DuckDBTransformer().prepare(transform_plan(spec, plan, ())) as transform,
        store.reader(source, plan, plan.streams[0], batch_rows=1000) as reader,
    ):
        async for batch in reader.batches(None):
            judged = await transform.apply(batch.data)
            assert judged.counts.failed == 0, judged.measures
            found += pa.table(judged.accepted).to_pylist()
    return plan, found


async def texts_of(folder: Path, **options: Any) -> list[dict[str, Any]]:
    """The rows of the CSV files in a folder, as they are read."""
    store, source = FilesSource(folder), SourceSpec(path="*.csv", options=options)
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=1000) as reader:
        return [row async for batch in reader.batches(None) for row in pa.table(batch.data).to_pylist()]


async def read_as(types: dict[str, str], rows: list[dict[str, str]], *, is_there: bool) -> JudgedBatch:
    """Convert texts to types that were guessed, or to those that the columns of a table have already."""
    plan = TransformPlan(
        source=tuple(Column(name, "string" if is_there else kind) for name, kind in types.items()),
        target=tuple(Column(name, kind) for name, kind in types.items()) if is_there else (),
        source_is_text=True,
        guessed=tuple(types),
    )
    async with DuckDBTransformer().prepare(plan) as transform:
        return await transform.apply(
            pa.table([pa.array([row.get(name) for row in rows], pa.string()) for name in types], names=list(types))
        )


def written(value: object, kind: str, text: str) -> bool:
    """Whether a value is the one that was written: same number, instant, precision, and presence of a zone."""
    match value:
        case bool():
            return (
                kind == "bool"
                and text in ("true", "True", "TRUE", "false", "False", "FALSE")
                and value == (text.lower() == "true")
            )
        case int():
            return str(value) == text
        case Decimal():
            return plain(text) and Decimal(text) == value
        case float():
            return Decimal(repr(value)) == Decimal(text) and not text.startswith(("+", "0e")) and text != "-0"
        case datetime():
            moment = datetime.fromisoformat(text)
            fraction = text.partition(".")[2].partition("+")[0].partition("-")[0].removesuffix("Z")
            return moment == value and (moment.tzinfo is None) == (value.tzinfo is None) and len(fraction) <= 6
        case date() | time():
            return type(value).fromisoformat(text) == value and len(text) >= 8
        case str():
            return value == text
        case _:
            return False


def plain(text: str) -> bool:
    whole = text.removeprefix("-").partition(".")[0]
    return whole.isascii() and whole.isdigit() and (whole == "0" or not whole.startswith("0"))


DIGITS = st.text("0123456789", min_size=1, max_size=22)
NUMBERS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "-", "+", " "]),
        DIGITS,
        st.sampled_from(["", ".", ".5", ".50", ".125", "e3", "E-7", ".5e+10", "_0", ",5"]),
    ),
)
MOMENTS = st.builds(
    "{:%Y-%m-%d}{}{}{}{}".format,
    st.dates(),
    st.sampled_from([" ", "T", "  ", "t"]),
    st.sampled_from(["00:00", "10:20:30", "24:00:00", "23:59:60", "1:00:00", "10"]),
    st.sampled_from(["", ".5", ".120000", ".123456", ".123456789", ".1234560"]),
    st.sampled_from(["", "", "Z", "z", "+02", "+02:00", "-0530", "+99", " UTC"]),
)
ODD = st.sampled_from(
    ["", "true", "TRUE", "t", "yes", "0", "1", "-0", "-0.0", "NaN", "nan", "inf", "Infinity", "0x10", "1e5", "1e400", "4.9e-324",
     "1.797e309", "01/02/2024", "2024-1-3", "2024-02-30", "infinity", "epoch", "1.234,56", "1,234", "１２", "٣", "007", "+41",
     "24:00:00", "10:00:00", "10:00", "{}", "0189dbb0-8a30-7630-ae80-51d222fda047", "x\ny", 'a"b', "é", " ", "-", ".", "NA"]
)  # fmt: skip
CELLS = st.one_of(
    st.lists(st.one_of(st.integers(-(2**70), 2**70).map(str), DIGITS), min_size=1, max_size=6),
    st.lists(st.decimals(-(10**9), 10**9, places=2).map(str), min_size=1, max_size=6),
    st.lists(st.floats(allow_nan=False, allow_infinity=False).map(repr), min_size=1, max_size=6),
    st.lists(NUMBERS, min_size=1, max_size=4),
    st.lists(st.dates().map(str), min_size=1, max_size=6),
    st.lists(MOMENTS, min_size=1, max_size=2),
    st.lists(st.one_of(ODD, NUMBERS, MOMENTS), min_size=1, max_size=3),
    st.lists(st.sampled_from(["true", "false", "True", "FALSE"]), min_size=1, max_size=6),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(CELLS, min_size=1, max_size=16))
async def test_what_is_guessed_of_a_file_is_what_was_written(cells: list[list[str]], tmp_path: Path) -> None:
    height = max(len(column) for column in cells)
    names = [f"c{number}" for number in range(len(cells))]
    rows = [[column[row] if row < len(column) else "" for column in cells] for row in range(height)]
    lines = [",".join('"' + text.replace('"', '""') + '"' for text in row) for row in rows]
    (tmp_path / "drawn.csv").write_text("\n".join([",".join(names), *lines]) + "\n", newline="")

    plan, found = await loaded(tmp_path)

    kinds = dict(plan.columns)
    assert len(found) == height
    assert plan.unproved == ()
    for row, got in zip(rows, found, strict=True):
        for name, text in zip(names, row, strict=True):
            assert written(got[name], kinds[name], text), (kinds[name], text, got[name])


KINDS = (
    "int64",
    "int16",
    "uint8",
    "decimal(18,2)",
    "decimal(38,0)",
    "float64",
    "bool",
    "date",
    "time",
    "timestamp",
    "timestamptz",
)


@settings(max_examples=25, deadline=None)
@given(columns=st.lists(st.tuples(st.sampled_from(KINDS), CELLS), min_size=4, max_size=24), is_there=st.booleans())
async def test_later_value_is_what_was_written_or_fails_its_row(
    columns: list[tuple[str, list[str]]], is_there: bool
) -> None:
    """Each value has a row of its own, so that what fails takes nothing else with it."""
    cells = [(f"c{number}", kind, text) for number, (kind, texts) in enumerate(columns) for text in texts]
    types = {name: kind for name, kind, _ in cells}

    judged = await read_as(types, [{name: text} for name, _, text in cells], is_there=is_there)

    failed = set(pa.table(judged.refused).column("ordinal").to_pylist())
    kept = [cell for ordinal, cell in enumerate(cells) if ordinal not in failed]
    assert judged.counts.failed == len(failed)
    for (name, kind, text), row in zip(kept, pa.table(judged.accepted).to_pylist(), strict=True):
        assert written(row[name], kind, text), (kind, text, row[name])


GUESSES = [
    (["1", "-20", "0"], "int64"),
    (["9223372036854775807"], "int64"),
    (["12.50", "99"], "decimal(18,2)"),
    (["12345678901234567.89", "1.10"], "decimal(38,2)"),
    (["12345678901234567890", "99999999999999999999"], "decimal(38,0)"),
    (["0.5", "1e3", "-2.5E-7"], "float64"),
    (["0.30000000000000004"], "float64"),
    (["true", "FALSE"], "bool"),
    (["2024-01-31"], "date"),
    (["10:20:30.5"], "time"),
    (["2024-01-31T10:20:30.123456", "2024-01-31 10:20"], "timestamp"),
    (["2024-01-31T10:20:30Z", "2024-01-31 10:20:30.5+05:30"], "timestamptz"),
    (["01234", "00501"], "string"),
    (["+41791234567", "0041"], "string"),
    (["-0", "1"], "string"),
    (["1_000"], "string"),
    (["0x10"], "string"),
    (["１２"], "string"),
    ([" 1"], "string"),
    (["12e5"], "string"),
    (["1" * 39], "string"),
    (["12345678901234567.89", "1e3"], "string"),
    (["1.797e309", "0.5"], "string"),
    (["NaN", "1.5"], "string"),
    (["t", "f"], "string"),
    (["1", "true"], "string"),
    (["01/02/2024"], "string"),
    (["2024-01-31 10:20:30.123456789"], "string"),
    (["2024-01-31 24:00:00"], "string"),
    (["2024-01-31 10:20:30", "2024-01-31 10:20:30Z"], "string"),
    (["10000-01-01 00:00:00"], "string"),
    (["9999-12-31 23:59:59-05"], "string"),
    (["10:20"], "string"),
    (["0189dbb0-8a30-7630-ae80-51d222fda047"], "string"),
    (["{}"], "string"),
]


async def test_types_are_guessed_where_they_keep_the_values(tmp_path: Path) -> None:
    height = max(len(texts) for texts, _ in GUESSES)
    rows = [[texts[row] if row < len(texts) else "" for texts, _ in GUESSES] for row in range(height)]
    lines = [*(",".join([*row, *(f'"{text}"' for text in row)]) for row in rows)]
    names = [f"{kind}{number}" for kind in "vq" for number in range(len(GUESSES))]
    (tmp_path / "a.csv").write_text("\n".join([",".join(names), *lines]) + "\n")

    plan = await planned(tmp_path)

    expected = [kind for _, kind in GUESSES]
    assert [kind for name, kind in plan.columns if name.startswith("v")] == expected
    assert [name for name, kind in plan.columns if kind != "string"] == list(plan.guessed)
    assert plan.unproved == ()


async def test_guess_is_proved_by_looking_at_everything_and_declared_types_are_none(tmp_path: Path) -> None:
    long = "x" * (BLOCK // 8)
    (tmp_path / "a.csv").write_text("id,n,note\n" + "".join(f"{n},{n},{long}\n" for n in range(12)))
    for number in range(17):
        (tmp_path / f"b{number:02}.csv").write_text("id,n,note\n1,1,x\n")

    large = await planned(tmp_path, path="a.csv", types={"n": "string"})
    many = await planned(tmp_path, path="b*.csv")
    few = await planned(tmp_path, path="b0*.csv")

    assert (large.guessed, large.unproved) == (("id",), ("id",))
    assert (many.unproved, few.unproved) == (("id", "n"), ())


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ('"x"y,1', "xy"), ('"x" ,1', "x "), ('"x""y",1', 'x"y'), ('5" wide,1', '5" wide'), (' "x",1', ' "x"'), ('"x\\",1', "x\\"),
        ('"x\ry",1', "x\ry"), ('"",1', ""), (",1", None),
    ],
)  # fmt: skip
async def test_quotes_are_read_as_the_guide_says(row: str, value: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(f"a,b\n{row}\n".encode())

    assert [found["a"] for found in await texts_of(tmp_path)] == [value]


@pytest.mark.parametrize("content", [b"a,b", b"a,b\n", b"a,b\r\n\r\n", b"\xef\xbb\xbfa,b\n", b"\n\na,b\r"])
async def test_header_alone_is_a_file_without_rows(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)

    plan, rows = await loaded(tmp_path)

    assert (plan.columns, rows) == ((("a", "string"), ("b", "string")), [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("first", ["x", "x" * 65_535, "x" * 524_287, "x" * 1_100_000])
async def test_lines_before_the_header_are_skipped_as_the_source_says(
    end: str, encoding: str, first: str, tmp_path: Path
) -> None:
    """Also where the end of a line lies on both sides of what is read at once."""
    lines = [first, 'Report, "2024', "a,b", "1,2", "3"]
    (tmp_path / "a.csv").write_bytes("".join(line + end for line in lines[:-1]).encode(encoding))
    options = {"skip_rows": 2, "encoding": encoding.removesuffix("-sig")}

    _, rows = await loaded(tmp_path, **options)
    (tmp_path / "a.csv").write_bytes("".join(line + end for line in lines).encode(encoding))
    with pytest.raises(InvalidInputError, match=r"a\.csv, line 5: 1 value where the header has 2"):
        await loaded(tmp_path, **options)

    assert rows == [{"a": 1, "b": 2}]


async def test_places_count_the_lines_that_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('of "2024\n\na,b\n1,2\n"3\n",4\n5,6\n')
    store, source = FilesSource(tmp_path), SourceSpec(path="*.csv", options={"skip_rows": 2})
    plan = await store.plan(source, lo=None, limit=None)
    async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
        [batch] = [batch async for batch in reader.batches(None)]
        places = [await reader.place(batch, ordinal) for ordinal in range(3)]

    assert places == ["a.csv, line 4", "a.csv, line 5", "a.csv, line 7"]
    for skipped, said in ((1, "line 5: 3 values"), (9, "empty behind the 9 lines that are skipped"), (3, "line 6: 3")):
        (tmp_path / "a.csv").write_text("title\n" + "x,y\n" * 3 + "1,2,3\n" * 2)
        if skipped == 3:
            (tmp_path / "a.csv").write_text("title\n" * 3 + "x,y\n1,2\n1,2,3\n")
        with pytest.raises(InvalidInputError, match=said):
            await planned(tmp_path, skip_rows=skipped)


async def test_title_above_the_header_says_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Report\na,b\n1,2\n")

    with pytest.raises(InvalidInputError, match=r"line 2: 2 values .*options: \{skip_rows: 1\}"):
        await planned(tmp_path)


@pytest.mark.parametrize(
    ("texts", "note", "rows"),
    [
        (["01/02/2024", "03/04/2024"], "either way", [date(2024, 2, 1), date(2024, 4, 3)]),
        (["1/31/2024"], "ISO 8601", [date(2024, 1, 31)]),
        (["31.12.2024"], "ISO 8601", [date(2024, 12, 31)]),
        (['"1.234,56"', '"7,5"'], "decimal point", [Decimal("1234.56"), Decimal("7.50")]),
        (['"1,234.56"', '"1,234"'], "thousands", [Decimal("1234.56"), Decimal("1234.00")]),
        (["2024-01-31 10:20:30.123456789"], "six digits", [datetime.fromisoformat("2024-01-31T10:20:30.123456")]),
    ],
)
async def test_note_on_a_text_says_the_step_that_makes_more_of_it(
    texts: list[str], note: str, rows: list[object], tmp_path: Path
) -> None:
    import yaml

    (tmp_path / "a.csv").write_text("\n".join(["day of it", *texts]) + "\n")
    plan = await planned(tmp_path)
    assert plan.note is not None
    assert note in plan.note
    steps = yaml.safe_load(plan.note[plan.note.index("transform: ") :])["transform"]
    document = {"pipeline": "p", "source": {"path": "*.csv"}, "transform": steps, "destination": {"table": "t"}}
    spec = PipelineSpec.from_document(document)
    values = pa.table({"day of it": [text.strip('"') for text in texts]})

    async with DuckDBTransformer().prepare(transform_plan(spec, plan, ())) as transform:
        judged = await transform.apply(values)

    assert pa.table(judged.accepted).column(0).to_pylist() == rows


async def test_notes_on_several_columns_are_one_piece_of_a_document(tmp_path: Path) -> None:
    """Two keys of one name would be one too many; and the steps make of all columns what each note says."""
    import yaml

    header = 'at,sum,no: ratio,day,"a,b",null,f,g\n'
    row = '01/02/2024,"1,234.5",NaN,31.12.2024,"1.234,567","7,5",1/2/2024,3.4.2024\n'
    (tmp_path / "a.csv").write_text(header + row)
    plan = await planned(tmp_path)
    note = str(plan.note)

    assert note.count("transform:") == note.count("options:") == 1
    assert note.count(" stays text") == 5
    assert "3 more columns stay text for such reasons" in note
    begin = note.index("options: ")
    options = yaml.safe_load(note[begin : note.index(" in the source", begin)])["options"]
    assert options == {"types": {"no: ratio": "float64"}}
    steps = yaml.safe_load(note[note.index("transform: ") :])["transform"]
    document = {"pipeline": "p", "source": {"path": "*.csv"}, "transform": steps, "destination": {"table": "t"}}
    values = pa.Table.from_pylist(await texts_of(tmp_path))
    async with DuckDBTransformer().prepare(transform_plan(PipelineSpec.from_document(document), plan, ())) as transform:
        judged = await transform.apply(values)

    [row_found] = pa.table(judged.accepted).to_pylist()
    assert {name: value for name, value in row_found.items() if not name.startswith("_headrace")} == {
        "at": date(2024, 2, 1), "sum": Decimal("1234.50"), "no: ratio": "NaN", "day": date(2024, 12, 31),
        "a,b": Decimal("1234.567"), "null": Decimal("7.50"), "f": date(2024, 2, 1), "g": date(2024, 4, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "rows", "failed"),
    [
        (["01/02/2024", "3.4.2024"], [date(2024, 2, 1), date(2024, 4, 3)], 0),  # Two marks.
        (["31/01/2024", "1-2-2024", "5.6.2024"], [date(2024, 1, 31), date(2024, 2, 1), date(2024, 6, 5)], 0),
        (["01/02/2024", "31/02/2024"], [date(2024, 2, 1)], 1),  # No such day.
    ],
)
async def test_step_of_a_note_fails_rows_of_another_form_by_their_column_and_no_others(
    texts: list[str], rows: list[date], failed: int, tmp_path: Path
) -> None:
    import yaml

    (tmp_path / "a.csv").write_text("\n".join(["at", *texts]) + "\n")
    plan = await planned(tmp_path)
    note = str(plan.note)
    steps = yaml.safe_load(note[note.index("transform: ") :])["transform"]
    document = {"pipeline": "p", "source": {"path": "*.csv"}, "transform": steps, "destination": {"table": "t"}}
    async with DuckDBTransformer().prepare(transform_plan(PipelineSpec.from_document(document), plan, ())) as transform:
        judged = await transform.apply(pa.table({"at": [*texts, "soon"]}))  # The last one was not looked at.

    assert pa.table(judged.accepted).column("at").to_pylist() == rows
    assert judged.counts.failed == failed + 1
    error = judged.measures.first_errors[-1]
    assert (error.kind, error.column, error.shape) == ("conversion", "at", "text of 4 characters: letters")


async def test_dates_in_both_orders_have_no_step_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at\n31/01/2024\n01/31/2024\n")

    note = str((await planned(tmp_path)).note)

    assert note == "at stays text, as its dates have the day before the month and behind it"


async def test_header_that_is_one_column_says_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b\n1;2\n")

    assert 'write options: {delimiter: ";"} in the source' in str((await planned(tmp_path)).note)


async def test_note_on_numbers_says_the_option_that_rounds_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\nNaN\n12345678901234567890123.5e1\n")

    assert "options: {types: {v: float64}}" in str((await planned(tmp_path)).note)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", "file.malformed", "is empty"),
        (b"\n\n", "file.malformed", "is empty"),
        (b"a,b\n1,2\n3\n", "file.malformed", "line 3: 1 value where the header has 2"),
        (
            b'a,b\n1,x "y,z"\n',
            "file.malformed",
            "line 2: 3 values where the header has 2, separated by ','. A value that holds",
        ),
        (b'a,b\n"x"y,2\n1,2,3\n', "file.malformed", "line 3: 3 values"),
        (b'a,b\n"x"y,2\n1,"\n3,4\n', "file.malformed", "line 3: in the row that begins here a quote is never closed"),
        (b'a,b\n"x\ny",2\n3,4,5\n', "file.malformed", "line 4: 3 values"),
        (
            b"a;b\n1;2,5\n",
            "file.malformed",
            "line 2: 2 values where the header has 1, separated by ','. If the file sep",
        ),
        (b'a,b\n1,2\n3,"4\n5,6\n', "file.malformed", "line 3: in the row that begins here a quote is never closed"),
        (b'a,b\n1,"', "file.malformed", "line 2: in the row that begins here a quote is never closed"),
        (b'a\n1\n"', "file.malformed", "line 3"),
        (b"a,a\n1,2\n", "file.malformed", "two columns are named a"),
        (b"a,\n1,2\n", "file.malformed", "column 2 has no name"),
        (
            b"a,b,\n1,2,\n",
            "file.malformed",
            "column 3 has no name; give it one in the header, or take the separator",
        ),
        (b"a,,b\n1,2,3\n", "file.malformed", "column 2 has no name; give it one in the header."),
        (b"a, \n1,2\n", "file.malformed", "column 2 has no name"),
        (b"  \n", "file.malformed", "column 1 has no name; give it one in the header."),
        (b"\xef\xbb\xbf", "file.malformed", "is empty"),
        (
            b'"a\nb",c\n1,2\n',
            "file.malformed",
            "column 1 ('a\\nb') cannot be named so: an identifier cannot hold",
        ),
        (b'a"x,c\n1,2\n', "file.malformed", "column 1 ('a\"x') cannot be named so"),
        (
            b"x" * 64 + b",c\n1,2\n",
            "file.malformed",
            "cannot be named so: an identifier has at most 63 bytes; give it another name",
        ),
        (b"a,b\n1,x\0y\n", "file.encoding", "line 2, character 4: a NUL"),
        (b"a,b\n1,caf\xe9\n", "file.encoding", "line 2, character 6: no character of UTF-8"),
        (b"a,stra\xdfe\n1,x\n", "file.encoding", "encoding: windows-1252"),
        (b"a,b\r1,2\r3,\xed\xa0\x80\r", "file.encoding", "line 3, character 3"),
        ("a,b\n1,x\n".encode("utf-16"), "file.encoding", "encoding: utf-16}"),
        ("a,b\n1,x\n".encode("utf-16-le"), "file.encoding", "utf-16-le"),
        ("a,b\n1,x\n".encode("utf-16-be"), "file.encoding", "utf-16-be"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "file.malformed", "end in .gz"),
        (bz2.compress(b"a,b\n1,2\n"), "file.malformed", "end in .bz2"),
        (b"PK\3\4rest", "file.malformed", "zip"),
        (b"PAR1rest", "file.malformed", "format: parquet"),
        (b"a" * 1_100_000, "file.malformed", "header does not end"),
    ],
)
@pytest.mark.parametrize("rows_before", [0, 3])
async def test_file_that_is_not_what_it_should_be_is_refused_by_its_place(
    content: bytes, code: str, words: str, rows_before: int, tmp_path: Path
) -> None:
    if rows_before:  # The fault lies behind what is looked at when the read is planned, in a file of its own.
        header = content.partition(b"\n")[0] if words.startswith("line") and b"\n" in content else b"a,b"
        for number in range(17):
            (tmp_path / f"a{number:02}.csv").write_bytes(
                header + b"\n" + b",".join([b"x"] * (header.count(b",") + 1)) + b"\n"
            )
    (tmp_path / "last.csv").write_bytes(content)

    with pytest.raises(InvalidInputError) as caught:
        await texts_of(tmp_path)

    assert (caught.value.code, "last.csv" in caught.value.message) == (code, True), caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", gzip.compress(b"a,b\n1,2\n" * 999, mtime=0)[:-20]])
async def test_file_that_is_not_compressed_as_its_name_says_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(content)

    with pytest.raises(InvalidInputError) as caught:
        await planned(tmp_path, path="a.csv.gz")

    assert caught.value.code == "file.malformed"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2", [("1", "2")]),
        (b"\xef\xbb\xbfa,b\n1,2\n", [("1", "2")]),
        (b"a,b\r1,2\r3,4\r", [("1", "2"), ("3", "4")]),
        (b"a,b\r\n\r\n1,2\r\n\r\n", [("1", "2")]),
        (b'a,b\n1,"x\r\ny"\n', [("1", "x\r\ny")]),
        (b'a,b\n1,""\n2,\n3,""""', [("1", ""), ("2", None), ("3", '"')]),
        (b'a,b\n1,x"y\n', [("1", 'x"y')]),
        (b"a,b\n", []),
        (b"a,b", []),
    ],
)
async def test_rows_are_read_to_the_last_one_however_lines_end(
    content: bytes, expected: list[tuple[str | None, ...]], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(content)

    rows = await texts_of(tmp_path, types={"a": "string", "b": "string"})

    assert [(row["a"], row["b"]) for row in rows] == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_declared_encoding_is_read_as_it_is_written(encoding: str, tmp_path: Path) -> None:
    letters = "".join(c for c in "éßЖжλ日本語한ก€ěşא" if c.encode(encoding, "ignore"))
    (tmp_path / "a.csv").write_bytes(f"{letters or 'x'},n\n{letters},1\n".encode(encoding))

    rows = await texts_of(tmp_path, encoding=encoding, types={letters or "x": "string", "n": "int64"})

    assert rows == [{letters or "x": letters or None, "n": "1"}]


@pytest.mark.parametrize(
    ("encoding", "content", "words"),
    [
        ("utf-16", "a\n1\n".encode("utf-16-le"), "utf-16-le"),
        ("latin-1", b"\xef\xbb\xbfa\n1\n", "encoding: utf-8"),
        ("windows-1252", b"a\n1\n2\x81\n", "line 3, character 2"),
        ("shift_jis", b"a\n\x81\n", "line 2"),
    ],
)
async def test_wrongly_declared_encoding_is_refused(encoding: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)

    with pytest.raises(InvalidInputError) as caught:
        await texts_of(tmp_path, encoding=encoding)

    assert (caught.value.code, words in caught.value.message) == ("file.encoding", True), caught.value.message


async def test_row_longer_than_a_block_is_read_and_longer_than_a_batch_is_refused(tmp_path: Path) -> None:
    long = "x" * (BLOCK + 5)
    (tmp_path / "a.csv").write_text(f"id,note\n1,a\n2,{long}\n3,b\n")
    store, source = FilesSource(tmp_path), SourceSpec(path="a.csv")
    plan = await store.plan(source, lo=None, limit=None)

    async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
        rows = [row async for batch in reader.batches(None) for row in pa.table(batch.data).to_pylist()]
    with pytest.raises(PlatformError) as caught:
        async with store.reader(source, plan, plan.streams[0], batch_rows=10, batch_bytes=1024) as reader:
            [batch async for batch in reader.batches(None)]

    assert [(row["id"], row["note"]) for row in rows] == [("1", "a"), ("2", long), ("3", "b")]
    assert caught.value.code == "source.row_too_large"


async def test_folder_and_missing_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    for path, words in (("a.csv", "a folder"), ("b.csv", "No file matches")):
        with pytest.raises(NotFoundError, match=words):
            await planned(tmp_path, path=path)


async def test_line_of_a_row_is_told_where_values_hold_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,note\n\n1,"x\ny"\n2,z\n\n3,"x\n"\n')
    store, source = FilesSource(tmp_path), SourceSpec(path="a.csv")
    plan = await store.plan(source, lo=None, limit=None)

    async with store.reader(source, plan, plan.streams[0], batch_rows=2) as reader:
        found = [
            await reader.place(batch, ordinal)
            async for batch in reader.batches(None)
            for ordinal in range(batch.data.num_rows)
        ]

    assert found == ["a.csv, line 3", "a.csv, line 5", "a.csv, line 7"]
