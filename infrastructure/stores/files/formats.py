"""Which format the files of a path are read as, and which options that format has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.errors import InvalidInputError

_COMPRESSED = (".gz", ".bz2", ".zst")
_OF_CSV = ("delimiter", "encoding", "null_text", "skip_rows")


def format_of(name: str) -> str | None:
    """The format that a file's name tells."""
    lowered = name.lower()
    if lowered.endswith(".parquet"):
        return "parquet"
    for ending in _COMPRESSED:
        lowered = lowered.removesuffix(ending)
    return "csv" if Path(lowered).suffix == ".csv" else None


def format_of_all(names: Sequence[str]) -> str:
    """The one format that the names of all files tell.

    Raises:
        InvalidInputError: a name tells none, or they tell several (`file.format`).
    """
    found = {name: format_of(name) for name in names}
    unknown = next((name for name, kind in found.items() if kind is None), None)
    if unknown is not None:
        raise InvalidInputError(
            f"{unknown} is neither CSV nor Parquet by its name. Read are .csv, also with .gz, .bz2 or .zst behind it, "
            "and .parquet: write a pattern that names these alone, or say format: csv or format: parquet if the "
            "files are that.",
            code="file.format",
        )
    kinds = set(found.values())
    if len(kinds) > 1:
        csv, parquet = (next(name for name, kind in found.items() if kind == wanted) for wanted in ("csv", "parquet"))
        raise InvalidInputError(
            f"The path names CSV and Parquet files ({csv}, {parquet}); write a pattern that names one format alone.",
            code="file.format",
        )
    return str(kinds.pop())


def refuse_options_of_csv(options: Mapping[str, Any], columns: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse options that say nothing about Parquet; `columns` are those of the files, `folders` those beside them.

    Raises:
        InvalidInputError: one is given (`spec.contradiction`), or a declared column is not there.
    """
    for name in _OF_CSV:
        if name in options:
            raise InvalidInputError(
                f"options.{name} is about CSV files, and these are Parquet; leave it out.", code="spec.contradiction"
            )
    for name in options.get("types") or {}:
        if name in columns:
            raise InvalidInputError(
                f"options.types names {name}, whose type the Parquet files themselves tell; write a cast step instead: "
                f"transform: [{{cast: {{{name}: …}}}}]",
                code="spec.contradiction",
            )
        if name not in folders:
            raise InvalidInputError(f"The files have no column {name}.", code="source.column_missing")


def differing(first: str, columns: Sequence[str], other: str, others: Sequence[str]) -> str:
    """Say how the columns of a file differ from those of the first one."""
    missing = [name for name in columns if name not in others]
    more = [name for name in others if name not in columns]
    parts = [f"it has no {', '.join(missing)}"] if missing else []
    parts += [f"it has {', '.join(more)} besides"] if more else []
    return (
        f"The columns of {other} are not those of {first}: {' and '.join(parts)}. The files of one path have the same "
        "columns; write a pattern that names such files alone, and another pipeline for the others."
    )
