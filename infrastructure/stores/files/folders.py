"""Folders named `column=value`, as Hive and Spark write them: a column of what lies in them, if the source says so."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError, SchemaMismatchError
from infrastructure.tabular.arrow import arrow_type

_FOLDER = re.compile("([^=]+)=(.*)", re.DOTALL)
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class FolderColumns:
    """Columns whose values the folders of a file tell, with their types: text, unless the source declares
    another one.
    """

    columns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, paths: Sequence[str], names: Sequence[str], options: Mapping[str, Any]) -> "FolderColumns":
        """Take them from the folders of all files; `names` are the columns of the files themselves, which count.

        Raises:
            InvalidInputError: the folders name columns and nobody says what is to become of them (`source.folders`), or
                they name other ones for one file than for another, or a value is none of the declared type.
        """
        found = [(path, values_of(path)) for path in paths]
        first, keys = found[0][0], tuple(name for name in found[0][1] if name not in names)
        wanted = options.get("hive_partitioning")
        for path, values in found:
            more = tuple(name for name in values if name not in names)
            if more and wanted is None:
                raise InvalidInputError(
                    f"The folders of {path} tell values of {', '.join(more)}, which is no column of the file. Write "
                    "options: {hive_partitioning: true} in the source to have them as columns, or false to do "
                    "without.",
                    code="source.folders",
                )
            if wanted and set(more) != set(keys):
                raise InvalidInputError(
                    f"The folders of {path} name other columns than those of {first}; write a pattern that names "
                    "files of the same folders alone, or options: {hive_partitioning: false}.",
                    code="source.folders",
                )
        if not wanted:
            return cls()
        declared = options.get("types") or {}
        self = cls(tuple((name, declared.get(name, "string")) for name in keys))
        for path in paths:
            self.scalars(path, is_text=False)
        return self

    def scalars(self, path: str, *, is_text: bool) -> dict[str, pa.Scalar]:
        """What the columns are for one file, as text or of their types.

        Raises:
            InvalidInputError: a value is none of its type (`source.folders`).
        """
        values = values_of(path)
        return {
            name: pa.scalar(values.get(name), pa.string())
            if is_text
            else _converted(values.get(name), name, kind, path)
            for name, kind in self.columns
        }


def values_of(path: str) -> dict[str, str | None]:
    """The values that the folders of a path tell."""
    found = (_FOLDER.fullmatch(folder) for folder in path.split("/")[:-1])
    pairs = [(unquote(match[1]), unquote(match[2])) for match in found if match is not None]
    return {name: None if value == _NULL else value for name, value in pairs}


def _converted(value: str | None, name: str, kind: str, path: str) -> pa.Scalar:
    try:
        return pc.cast(pa.scalar(value, pa.string()), arrow_type(kind), safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, SchemaMismatchError) as error:
        raise InvalidInputError(
            f"What the folders of {path} tell of {name} is none of type {kind}; declare another one in options.types.",
            code="source.folders",
        ) from error
