"""The steps of a transform: SQL, renames, casts, drops, and functions of the user's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SqlStep:
    """A row-wise SELECT over `batch`."""

    sql: str

    def may_touch(self, column: str) -> bool:
        """Whether the step may change a column or its name."""
        del column  # Any SQL may.
        return True


@dataclass(frozen=True)
class RenameStep:
    """Give columns other names: old → new."""

    columns: Mapping[str, str]

    def may_touch(self, column: str) -> bool:
        """Whether the step may change a column or its name."""
        return column in self.columns or column in self.columns.values()


@dataclass(frozen=True)
class CastStep:
    """Convert columns without loss; a row that does not convert is `failed`."""

    types: Mapping[str, str]

    def may_touch(self, column: str) -> bool:
        """Whether the step may change a column or its name."""
        return column in self.types


@dataclass(frozen=True)
class DropStep:
    """Leave columns out."""

    columns: tuple[str, ...]

    def may_touch(self, column: str) -> bool:
        """Whether the step may change a column or its name."""
        return column in self.columns


@dataclass(frozen=True)
class PythonStep:
    """A function of an installed package or of the project: Arrow in, Arrow out."""

    name: str

    def may_touch(self, column: str) -> bool:
        """Whether the step may change a column or its name."""
        del column  # Any function may.
        return True


Step = SqlStep | RenameStep | CastStep | DropStep | PythonStep


def step_of(value: Mapping[str, Any]) -> Step:
    """Build a step from its part of a checked document."""
    match value:
        case {"sql": sql}:
            return SqlStep(sql)
        case {"rename": columns}:
            return RenameStep(dict(columns))
        case {"cast": types}:
            return CastStep(dict(types))
        case {"drop": columns}:
            return DropStep(tuple(columns))
        case _:
            return PythonStep(value["python"])
