"""What is known of CSV files before they are read: columns with types, what of it is a guess, and what to
say about it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from domain.errors import InvalidInputError, SourceChangedError
from infrastructure.stores.files.csv_guess import guess_types, notes_on_texts, told
from infrastructure.stores.files.csv_text import CsvFile
from infrastructure.stores.files.formats import differing

_SAMPLED_FILES = 16
_FIRST_BYTES = 2 * 1024 * 1024
_LATER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class CsvSample:
    """`guessed` are the columns whose types are guesses, `unproved` those that a value not looked at may break."""

    columns: tuple[tuple[str, str], ...]
    guessed: tuple[str, ...]
    unproved: tuple[str, ...]
    note: str | None

    @classmethod
    def of(
        cls, files: Sequence[CsvFile], declared: Mapping[str, str], folders: tuple[tuple[str, str], ...] = ()
    ) -> "CsvSample":
        """Look at the beginning of the first file and, less far, of some that follow; `folders` tell columns besides.

        Raises:
            InvalidInputError: a file is not well formed, has other columns than the first, or a declared column is not
            there.
            SourceChangedError: a file was exchanged meanwhile.
        """
        names = files[0].header()
        for file in files[1:]:
            if set(others := file.header()) != set(names):
                raise InvalidInputError(
                    differing(files[0].name, names, file.name, others), code="source.columns_differ"
                )
        unknown = sorted(set(declared) - set(names) - set(dict(folders)))
        if unknown:
            raise InvalidInputError(f"The files have no column {unknown[0]}.", code="source.column_missing")
        to_guess = [name for name in names if name not in declared]
        samples, is_everything = [], len(files) <= _SAMPLED_FILES
        for number, file in enumerate(files[:_SAMPLED_FILES]):
            rows, is_whole = file.beginning(_LATER_BYTES if number else _FIRST_BYTES)
            if set(rows.column_names) != set(names):
                raise SourceChangedError(f"The file {file.name} was exchanged while it was looked at; try again.")
            samples.append(rows.select(to_guess).cast(pa.schema([(name, pa.string()) for name in to_guess])))
            is_everything = is_everything and is_whole
        sample = pa.concat_tables(samples)
        types = guess_types(sample)
        guessed = tuple(name for name, kind in types.items() if kind != "string")
        return cls(
            columns=(*((name, declared.get(name) or types[name]) for name in names), *folders),
            guessed=guessed,
            unproved=() if is_everything else guessed,
            note=_note(names, sample.drop_columns(list(guessed))),
        )


def _note(names: Sequence[str], texts: pa.Table) -> str | None:
    separators = [mark for mark in ";\t|" if len(names) == 1 and mark in names[0]]
    notes = [
        f"the header is one column; if {mark!r} separates columns, write options: {{delimiter: {json.dumps(mark)}}} "
        "in the source"
        for mark in separators
    ]
    return "; ".join([*notes, *told(notes_on_texts(texts))]) or None
