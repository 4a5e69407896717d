"""What one look at the catalog of a Postgres tells of the names in a query."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ROW = "\x00row"
"""The name, which no column has, of the field that stands for a relation's row as a value."""


@dataclass(frozen=True)
class Field:
    """A column; `foreign` is the type that is not Postgres' own, and not trusted, so that no name may be applied to it.

    What is sorted, grouped or made distinct by one that `sorts` is so by functions of somebody's.
    """

    name: str
    foreign: str | None = None
    may_cast: bool = True
    sorts: bool = False


@dataclass(frozen=True)
class Relation:
    """What a name stands for under the role's own search path, and whether all of its types are Postgres' own.

    Behind its columns `fields` has one for the row itself, where somebody's function casts that.
    """

    schema: str
    name: str
    fields: tuple[Field, ...]
    is_builtin: bool = True


Named = tuple[str, str]
"""The schema, or nothing, and the name of a relation as a query writes them."""


@dataclass(frozen=True)
class Known:
    """What the catalog says.

    Of the names that are selected from a value, `callable` are those of a function or type, which `a.b` would call.
    `outputs` are the columns that functions name themselves, `functions` those of trusted schemas alone, `types` the
    schemas of types, `casts` those between types of Postgres' own that functions of somebody's make, `literals` the
    schema and name of what the text of a name stands for.
    """

    relations: Mapping[Named, Relation] = field(default_factory=dict)
    callable: frozenset[str] = frozenset()
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()
    types: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    literals: Mapping[str, Named] = field(default_factory=dict)
    trusted: frozenset[str] = frozenset()
    casts: tuple[str, ...] = ()
