"""What is looked for in a CSV that cannot be read takes little room, however many values or lines a row has."""

import csv
import io
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.errors import InvalidInputError
from infrastructure.stores.files import csv_lines
from infrastructure.stores.files.csv_faults import bad_structure, line_of_row
from infrastructure.stores.files.csv_lines import Lines
from infrastructure.stores.files.csv_text import CsvFile, Dialect

pytestmark = pytest.mark.line("29")

MIB = 1024 * 1024
MANY = 300_000


def _lines(text: str, width: int = 0) -> Lines:
    return Lines(io.StringIO(text, newline=""), 64 * MIB, ",", width)


def _looked_through(text: str, width: int = 2) -> str:
    found = bad_structure(_lines(text, width), "x.csv", ",", width)
    return found.message if found is not None else "sound"


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("row", ["," * MANY, '"",' * MANY, '"a\n",' + "," * MANY, ',,"\n",' * MANY])
def test_a_row_of_very_many_values_is_told_by_that_and_not_taken_apart(row: str) -> None:
    said = _looked_through(f"id,name\n1,a\n{row}\n")
    assert said == "x.csv, line 3: more than 100,000 values where the header has 2, separated by ','."


def test_they_take_no_room() -> None:
    text = _lines("id,name\n" + "," * 3_000_000)
    assert _peak(lambda: bad_structure(text, "x.csv", ",", 2)) < 16 * MIB  # The line is 3 or 12; a list is 24.


@pytest.mark.parametrize("row", ['1,"' + "," * MANY + '"', '1,"\n' + "," * MANY + '\n"', '1,"' + '"",' * MANY + '"'])
def test_delimiters_within_quotes_separate_nothing(row: str) -> None:
    assert _looked_through(f"id,name\n{row}\n2,b\n") == "sound"
    assert _looked_through(f"id,name\n{row}\n2\n").startswith(f"x.csv, line {3 + row.count(chr(10))}: 1 value where")
    assert line_of_row(_lines(f"id,name\n{row}\n2,b\n"), ",", 1) == 3 + row.count("\n")


def test_as_many_values_as_the_header_has_are_never_too_many() -> None:
    wide = "," * csv_lines.MOST_VALUES
    assert _looked_through(f"{wide}\n{wide}\n", len(wide) + 1) == "sound"
    assert "more than 100,001 values" in _looked_through(f"{wide}\n{wide},,\n", len(wide) + 1)


def test_lines_within_a_value_take_no_room() -> None:
    said: list[str] = []
    peak = _peak(lambda: said.append(_looked_through('id,name\n1,a\n2,"' + "a line\n" * 20_000)))
    assert said == ["x.csv, line 3: in the row that begins here a quote is never closed."]
    assert peak < MIB


def test_few_values_are_judged_as_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, seen = random.Random(4711), set()
    for _ in range(2000):
        row = "".join(chance.choices('a,"\n', [2, 3, 3, 1], k=chance.randrange(14)))
        told = []
        for most in (3, 10**9):
            monkeypatch.setattr(csv_lines, "MOST_VALUES", most)
            told.append(_looked_through(f"a,b,c\n{row}\n1,2,3\n", 3))
        few, many = told
        assert few.partition(":")[0] == many.partition(":")[0], (row, told)
        seen.add(few.partition(": ")[2][:9])
    assert seen >= {"", "more than", "in the ro", "1 value w", "2 values "}


def _line_by_itself(text: str, row: int, skip: int) -> int:
    """As the `csv` module reads rows, all of each."""
    lines = io.StringIO(text, newline="")
    for _ in range(skip):
        lines.readline()
    rest = list(lines)
    reader, begins, found = csv.reader(iter(rest), delimiter=","), skip + 1, -2
    for values in reader:
        found += bool(values)
        if found == row:
            break
        begins = skip + reader.line_num + 1
    return begins


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_a_row_begins_where_it_does_for_who_reads_all_of_it(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_lines, "_CHUNK_CHARACTERS", chunk)
    chance, seen = random.Random(chunk), set()
    for _ in range(3000):
        text = "".join(chance.choices('ab,"\n\r', [2, 1, 3, 6, 2, 1], k=chance.randrange(24)))
        row, skip = chance.randrange(4), chance.choice([0, 0, 1])
        told = line_of_row(_lines(text), ",", row, skip)
        assert told == _line_by_itself(text, row, skip), (text, row, skip)
        seen.add(told)
    assert seen >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize("value", ["{x}", '"{x}"', '"{pairs}"', '"\n{x}"', '"{x}\n""{x}"', '"",{x}'])
def test_the_line_of_a_row_takes_no_room_for_the_rows_before_it(value: str) -> None:
    long = value.format(x="x" * 4_000_000, pairs='""' * 2_000_000)
    text = _lines(f"id,name\n1,{long}\n\n2,{long}\n3,b\n")
    said: list[int] = []
    peak = _peak(lambda: said.append(line_of_row(text, ",", 2)))
    assert said == [5 + 2 * long.count("\n")]
    assert peak < 3 * MIB


def test_a_file_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,name\n1,"a\nb"\n' + "," * 200_000 + "\n")
    with pytest.raises(InvalidInputError, match=r"x\.csv, line 4: more than 100,000 values where the header has 2"):
        list(CsvFile(path, "x.csv", Dialect()).batches())
