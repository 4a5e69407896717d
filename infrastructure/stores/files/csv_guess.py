"""The types that the values of a CSV show: guessed from a sample, by the expressions that convert every value later."""

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from infrastructure.descriptors import need_descriptors
from infrastructure.sql import quote
from infrastructure.tabular.exact import exact

K = TypeVar("K", bound=Hashable)
_HEAD_ROWS = 1000
_CHUNK_ROWS = 4096
_PLAIN_NUMBER = "-?(0|[1-9][0-9]*)([.][0-9]+)?"
_SEEN = 16
"""Values of a column that tell which types are worth asking all of them about."""
_NUMBER = ("int64", "float64")
_FRACTION = ("float64",)
_TRIED_LAST = ("float64", "timestamptz")
_FEW_DIGITS = 9
"""Behind the point: with more, it is a measurement, and the next value may well have an exponent."""
_ROOM_DIGITS = 3
_SIZES = {
    "whole": "max(length(ltrim(split_part({}, '.', 1), '-')))",
    "scale": "max(length(split_part({}, '.', 2)))",
}
_TOGETHER = 50
"""Questions that are put at once: DuckDB keeps room for each part of each, and takes the square of their number to plan
them.
"""
_NOTED = 100
"""Columns that are looked at for what to say of them, each by itself."""
_SENTENCES = 5
_NO_NAMES = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
_DATE = "[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{4}"


def guess_types(sample: pa.Table) -> dict[str, str]:
    """Guess the type of every column of texts: one other than string only where each value stays what it is."""
    left = {name: kinds for name, head in _heads(sample).items() if (kinds := _likely(head))}
    types: dict[str, str] = {}
    if left:
        with _asking(sample) as values:
            fractions = [name for name, kinds in left.items() if kinds == _FRACTION]
            types, decimals = values.guessed(
                {name: kinds[0] for name, kinds in left.items() if name not in fractions}, fractions
            )
            left = {name: kinds for name, kinds in left.items() if name not in types}
            _, more = values.guessed({}, [name for name, kinds in left.items() if kinds == _NUMBER])
            found, _ = values.guessed(decimals | more)
            types |= found
            last = {name: kinds[-1] for name, kinds in left.items() if name not in types}
            found, _ = values.guessed({name: kind for name, kind in last.items() if kind in _TRIED_LAST})
            types |= found
    return {name: types.get(name, "string") for name in sample.column_names}


@dataclass(frozen=True)
class Note:
    """Why a column stays text, and what makes more of it: an expression and a cast behind it, or an option of the
    source.
    """

    sentence: str
    expression: str | None = None
    cast: str | None = None
    option: str | None = None


def notes_on_texts(sample: pa.Table) -> dict[str, Note]:
    """Say of columns that stay text what they seem to hold, and what to write to have it."""
    left = [name for name, head in _heads(sample).items() if re.match("[0-9-]|nan|inf", head[0], re.I)][:_NOTED]
    notes: dict[str, Note] = {}
    if left:
        with _asking(sample.select(left)) as values:
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


def _heads(sample: pa.Table) -> dict[str, list[str]]:
    """The first values of each column that has one."""
    filled = ((name, sample.column(name)) for name in sample.column_names)
    heads = ((name, (column.drop_null() if column.null_count else column).slice(0, _SEEN)) for name, column in filled)
    return {name: head.to_pylist() for name, head in heads if len(head)}


def _likely(head: Sequence[str]) -> tuple[str, ...]:
    """The types that a column may have which begins with these values, in the order in which they are tried."""
    value = head[0]
    if re.fullmatch("-?[0-9][0-9.]*([eE][+-]?[0-9]+)?", value):
        return _FRACTION if any(re.search("[.eE]", other) for other in head) else _NUMBER
    if value[4:5] == "-":
        return ("date",) if len(value) == 10 else ("timestamp", "timestamptz")
    if value[2:3] == ":" and value[5:6] == ":":  # Without seconds it may as well be minutes and seconds.
        return ("time",)
    return ("bool",) if value.lower() in ("true", "false") else ()


class _Values:
    """The values of a sample, asked about all columns at once and about a few rows first."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sample: pa.Table) -> None:
        self._connection = connection
        self._sample = sample
        self._names: list[str] = []

    def __enter__(self) -> "_Values":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def guessed(self, types: Mapping[str, str], fractions: Iterable[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
        """Keep the guesses that hold for every value, and give the decimals that have room for all of other columns."""
        conditions = {name: f"({exact(quote(name), kind)}) IS NOT NULL" for name, kind in types.items()}
        sizes = {(name, part): size.format(quote(name)) for name in fractions for part, size in _SIZES.items()}
        found = self._asked(_broken(conditions) | sizes)
        kinds = {name: _decimal(found[name, "whole"], found[name, "scale"]) for name, part in sizes if part == "scale"}
        return (
            {name: kind for name, kind in types.items() if not found[name]},
            {name: kind for name, kind in kinds.items() if kind is not None},
        )

    def holding(self, conditions: Mapping[str, str]) -> list[str]:
        """Name the columns whose condition is true of every value."""
        broken = _broken(conditions)
        likely = self._asked(broken, limit=f" LIMIT {_HEAD_ROWS}")
        found = self._asked({name: broken[name] for name, count in likely.items() if not count})
        return [name for name, count in found.items() if not count]

    def measured(self, names: Iterable[str], aggregate: str) -> dict[str, int]:
        """Measure columns by an aggregate."""
        return self._asked({name: aggregate.format(quote(name)) for name in names})

    def _asked(self, aggregates: Mapping[K, str], *, limit: str = "") -> dict[K, int]:
        rows = f"(SELECT * FROM _headrace_sample{limit})"
        keys, found = list(aggregates), list[int]()
        for begin in range(0, len(keys), _TOGETHER):
            part = keys[begin : begin + _TOGETHER]
            self._register(part)
            asked = ", ".join(aggregates[key] for key in part)
            found += self._connection.execute(f"SELECT {asked} FROM {rows}").fetchall()[0]
        return dict(zip(keys, found, strict=True))

    def _register(self, keys: Sequence[Hashable]) -> None:
        """Give the engine the columns that are asked about: it looks at all that there are, each time."""
        names = list(dict.fromkeys(str(key[0] if isinstance(key, tuple) else key) for key in keys))
        if names != self._names:
            self._connection.register("_headrace_sample", self._sample.select(names))
            self._names = names


def _asking(sample: pa.Table) -> _Values:
    # In chunks, so that more than one thread can look at them.
    return _Values(_instance().cursor(), pa.Table.from_batches(sample.to_batches(_CHUNK_ROWS), sample.schema))


@cache
def _instance() -> duckdb.DuckDBPyConnection:
    """The one instance that looks at samples: to start one takes longer than to look at a small file."""
    need_descriptors()
    connection = duckdb.connect(":memory:", config={"threads": 2, "python_enable_replacements": False})
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def _broken(conditions: Mapping[str, str]) -> dict[Any, str]:
    """Count the values of columns of which a condition is not true."""
    return {
        name: f"count(*) FILTER ({quote(name)} IS NOT NULL AND ({condition}) IS NOT TRUE)"
        for name, condition in conditions.items()
    }


def _decimal(whole: int, scale: int) -> str | None:
    """The decimal with room for so many digits, if they are those of a usual number."""
    digits = whole + scale
    if scale > _FEW_DIGITS or digits > 38:
        return None
    return f"decimal({18 if digits + _ROOM_DIGITS <= 18 else 38},{scale})"


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
    (f"{_PLAIN_NUMBER}[.]?([eE][+-]?[0-9]+)?|(?i:[+-]?inf(inity)?|nan)", _note_on_floats),
    ("[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}[.][0-9]{7,}", _note_on_fractions),
)
