"""The types that the values of a CSV show: guessed from a sample, by the expressions that convert every value later."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa

from infrastructure.exact import exact
from infrastructure.sql import quote

_HEAD_ROWS = 1000
_CHUNK_ROWS = 4096
_NUMBER = "-?(0|[1-9][0-9]*)([.][0-9]+)?"
_FEW_DIGITS = 9
"""Behind the point: with more, it is a measurement, and the next value may well have an exponent."""
_ROOM_DIGITS = 3
_SENTENCES = 5
_NO_NAMES = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
_DATE = "[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{4}"


def guess_types(sample: pa.Table) -> dict[str, str]:
    """Guess the type of every column of texts: one other than string only where each value stays what it is."""
    left = {name: kinds for name, first in _first_values(sample).items() if (kinds := _likely(first))}
    types: dict[str, str] = {}
    if left:
        with _asking(sample) as values:
            types = values.as_guessed({name: kinds[0] for name, kinds in left.items()})
            left = {name: kinds[1:] for name, kinds in left.items() if name not in types and kinds[1:]}
            types |= values.as_guessed(_decimals(values, [name for name, kinds in left.items() if "float64" in kinds]))
            types |= values.as_guessed({name: kinds[0] for name, kinds in left.items() if name not in types})
    return {name: types.get(name, "string") for name in sample.column_names}


@dataclass(frozen=True)
class Note:
    """Why a column stays text, and what makes more of it: an expression and a cast behind it, or an option of the source."""

    sentence: str
    expression: str | None = None
    cast: str | None = None
    option: str | None = None


def notes_on_texts(sample: pa.Table) -> dict[str, Note]:
    """Say of columns that stay text what they seem to hold, and what to write to have it."""
    left = [name for name, first in _first_values(sample).items() if re.match("[0-9-]|nan|inf", first, re.I)]
    notes: dict[str, Note] = {}
    if left:
        with _asking(sample) as values:
            for pattern, note in _NOTES:
                names = [name for name in left if name not in notes]
                found = values.holding({name: f"regexp_full_match({quote(name)}, '{pattern}')" for name in names})
                notes |= {name: note(name, values) for name in found}
    return {name: notes[name] for name in left if name in notes and notes[name].sentence}


def told(notes: Mapping[str, Note]) -> list[str]:
    """The notes as sentences, and then all that is to be written, each key of the document once and on one line."""
    if not notes:
        return []
    sentences = [note.sentence for note in notes.values()][:_SENTENCES]
    if len(notes) > _SENTENCES:
        sentences.append(f"{len(notes) - _SENTENCES} more columns stay text for such reasons")
    options = [f"{_key(name)}: {note.option}" for name, note in notes.items() if note.option]
    if options:
        sentences.append(f"rounded with options: {{types: {{{', '.join(options)}}}}} in the source")
    replaced = [f"{note.expression} as {quote(name)}" for name, note in notes.items() if note.expression]
    casts = [f"{_key(name)}: {note.cast}" for name, note in notes.items() if note.cast]
    if replaced:
        step = f"select * replace ({', '.join(replaced)}) from batch".replace("'", "''")
        sentences.append(f"converted with transform: [{{sql: '{step}'}}, {{cast: {{{', '.join(casts)}}}}}]")
    return sentences


def _key(name: str) -> str:
    """A name as a key in a line of YAML."""
    is_plain = re.fullmatch("[A-Za-z_][A-Za-z0-9_]*( [A-Za-z0-9_]+)*", name) and name.lower() not in _NO_NAMES
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _first_values(sample: pa.Table) -> dict[str, str]:
    """The first value of each column that has one."""
    found = ((name, next((v for v in sample.column(name) if v.is_valid), None)) for name in sample.column_names)
    return {name: value.as_py() for name, value in found if value is not None}


def _likely(value: str) -> tuple[str, ...]:
    """The types that a column may have which begins with this value, in the order in which they are tried."""
    if re.fullmatch("-?[0-9][0-9.]*([eE][+-]?[0-9]+)?", value):
        return ("int64", "float64")
    if value[4:5] == "-":
        return ("date",) if len(value) == 10 else ("timestamp", "timestamptz")
    if value[2:3] == ":" and value[5:6] == ":":  # Without seconds it may as well be minutes and seconds.
        return ("time",)
    return ("bool",) if value.lower() in ("true", "false") else ()


class _Values:
    """The values of a sample, asked about all columns at once and about a few rows first."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __enter__(self) -> "_Values":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def as_guessed(self, types: Mapping[str, str]) -> dict[str, str]:
        """Keep the guesses that hold for every value."""
        conditions = {name: f"({exact(quote(name), kind)}) IS NOT NULL" for name, kind in types.items()}
        return {name: types[name] for name in self.holding(conditions)}

    def holding(self, conditions: Mapping[str, str]) -> list[str]:
        """Name the columns whose condition is true of every value."""
        broken = {
            name: f"count(*) FILTER ({quote(name)} IS NOT NULL AND ({condition}) IS NOT TRUE)"
            for name, condition in conditions.items()
        }
        likely = self._asked(broken, limit=f" LIMIT {_HEAD_ROWS}")
        found = self._asked({name: broken[name] for name, count in likely.items() if not count})
        return [name for name, count in found.items() if not count]

    def measured(self, names: Iterable[str], aggregate: str) -> dict[str, int]:
        """Measure columns by an aggregate."""
        return self._asked({name: aggregate.format(quote(name)) for name in names})

    def _asked(self, aggregates: Mapping[str, str], *, limit: str = "") -> dict[str, int]:
        if not aggregates:
            return {}
        rows = f"(SELECT * FROM _headrace_sample{limit})"
        found = self._connection.execute(f"SELECT {', '.join(aggregates.values())} FROM {rows}").fetchall()[0]
        return dict(zip(aggregates, found, strict=True))


def _asking(sample: pa.Table) -> _Values:
    cursor = _instance().cursor()
    # In chunks, so that more than one thread can look at them.
    cursor.register("_headrace_sample", pa.Table.from_batches(sample.to_batches(_CHUNK_ROWS), sample.schema))
    return _Values(cursor)


@cache
def _instance() -> duckdb.DuckDBPyConnection:
    """The one instance that looks at samples: to start one takes longer than to look at a small file."""
    connection = duckdb.connect(":memory:", config={"threads": 2, "python_enable_replacements": False})
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def _decimals(values: _Values, names: Iterable[str]) -> dict[str, str]:
    """The decimal with room for all values of each column, if they are numbers."""
    wholes = values.measured(names, "max(length(ltrim(split_part({}, '.', 1), '-')))")
    scales = values.measured(names, "max(length(split_part({}, '.', 2)))")
    guessed = {}
    for name, scale in scales.items():
        digits = wholes[name] + scale
        if scale <= _FEW_DIGITS and digits <= 38:
            guessed[name] = f"decimal({18 if digits + _ROOM_DIGITS <= 18 else 38},{scale})"
    return guessed


def _note_on_dates(name: str, values: _Values) -> Note:
    """A text that is none in the form found stays as it is, and the cast refuses its row by column and place."""
    column = quote(name)
    first = values.measured([name], "max(TRY_CAST(regexp_extract({}, '^[0-9]+') AS INTEGER))")[name]
    second = values.measured([name], "max(TRY_CAST(regexp_extract({}, '^[0-9]+[/.-]([0-9]+)', 1) AS INTEGER))")[name]
    if first > 12 and second > 12:
        return Note(f"{name} stays text, as its dates have the day before the month and behind it")
    order = "%m{0}%d{0}%Y" if second > 12 else "%d{0}%m{0}%Y"
    forms = [
        order.format(mark)
        for mark in "/.-"
        if values.measured([name], f"count(*) FILTER (contains({{}}, '{mark}'))")[name]
    ]
    form = f"'{forms[0]}'" if len(forms) == 1 else str(forms)
    how = "day and month may stand either way" if first <= 12 and second <= 12 else "only ISO 8601 is taken for a date"
    return Note(
        f"{name} stays text, as {how}; read as {' and '.join(forms)} it is dates",
        f"coalesce(strftime(try_strptime({column}, {form}), '%Y-%m-%d'), {column})",
        "date",
    )


def _note_on_separators(name: str, values: _Values) -> Note:
    if not values.measured([name], "count(*) FILTER (regexp_matches({}, ',|[.].*[.]'))")[name]:
        return Note("")  # Digits alone are a code, such as one with leading zeros.
    commas = values.holding({name: f"regexp_full_match({quote(name)}, '-?[0-9]{{1,3}}(,[0-9]{{3}})*([.][0-9]+)?')"})
    stripped = f"replace({quote(name)}, ',', '')" if commas else f"replace(replace({quote(name)}, '.', ''), ',', '.')"
    mark = "." if commas else ","
    scale = max(2, values.measured([name], f"max(length(split_part({{}}, '{mark}', 2)))")[name])
    meaning = "for thousands" if commas else "for the decimal point"
    return Note(
        f"{name} stays text, as a comma in a number means two things; it is taken {meaning}",
        stripped,
        f'"decimal({18 if scale <= _FEW_DIGITS else 38},{min(scale, 38)})"',
    )


def _note_on_floats(name: str, _: _Values) -> Note:
    return Note(f"{name} stays text, as no float64 is exactly each value", option="float64")


def _note_on_fractions(name: str, _: _Values) -> Note:
    return Note(
        f"{name} stays text, as a timestamp holds six digits of a second; the others are cut off",
        f"substr({quote(name)}, 1, 26)",
        "timestamp",
    )


_NOTES = (
    (_DATE, _note_on_dates),
    ("-?([0-9]{1,3}([.,][0-9]{3})+|[0-9]+)([.,][0-9]+)?", _note_on_separators),
    (f"{_NUMBER}[.]?([eE][+-]?[0-9]+)?|(?i:[+-]?inf(inity)?|nan)", _note_on_floats),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}[.][0-9]{7,}", _note_on_fractions),
)
