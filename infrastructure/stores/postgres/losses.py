"""Values that a column of Postgres would take and change without a word, since they come to it as text: what a domain,
the items of an array, the bounds of a range, or a type of few letters or digits does not keep.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from domain.errors import SchemaMismatchError
from infrastructure.sql import quote
from infrastructure.stores.postgres.resolving import is_own

MODIFIER = re.compile(r"\([0-9, -]+\)")
_FIELDS = re.compile(r"^interval .*")
_RANGE = re.compile(r"range(\[\])*$")
_LETTERS = ("character varying", "text", "bpchar", "character", "name", '"char"')
_BITS = ("bit", "bit varying")
_FLOATS = ("real", "double precision")
_NAIVE, _ZONED = "timestamp without time zone", "time with time zone"
_CLOCKS = ("interval", "time without time zone", _ZONED, _NAIVE, "timestamp with time zone")
_PLACES = ("point", "lseg", "path", "box", "polygon", "circle", "line")
_UNSIGNED = ("oid", "xid", "xid8", "cid")
"""Of which a number below zero is one that is very great."""
_ROWS = "record"
# As no type of a time keeps them; and a day, where a time of it is all that is kept.
_DIGITS, _DAY = "'[.][0-9]{6}0*[1-9]'", "'[0-9]-([0-9]{1,2}|[A-Za-z]{3})-[0-9]'"
_MIDNIGHT = r"'[ Tt]+00:00(:00([.]0*)?)?'"
_NUMBER = "'[-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9]+)?'"
_CENTS, _CLOCK = "'[.][0-9]{2}0*[1-9]'", "':'"
# As what bounds of a range are looked at: in these, none of them is cut.
_WIDE = {
    **dict.fromkeys(("numeric", *_FLOATS), ("numrange", "nummultirange")),
    **dict.fromkeys((_NAIVE, "timestamp with time zone"), ("tstzrange", "tstzmultirange")),
}

# A domain is what it is made of, an array its items, and a range its bounds; the modifier of a domain over an array is
# that of the items.
_MADE_OF = """
WITH RECURSIVE parts AS (
  SELECT a.name, t.oid, -1 AS modifier, '' AS path
  FROM json_array_elements_text($1::json) AS a(name) JOIN pg_type t ON t.oid = to_regtype(a.name)
  UNION ALL
  SELECT p.name, coalesce(nullif(t.typbasetype, 0), i.oid, r.rngsubtype),
    CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE p.modifier END,
    p.path || CASE WHEN t.typtype IN ('r', 'm') THEN t.typtype::text WHEN i.oid IS NOT NULL THEN 'a' ELSE '' END
  FROM parts p JOIN pg_type t ON t.oid = p.oid LEFT JOIN pg_type i ON i.typarray = t.oid
  LEFT JOIN pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
  WHERE coalesce(nullif(t.typbasetype, 0), i.oid, r.rngsubtype) IS NOT NULL)
SELECT p.name, CASE WHEN t.typtype = 'c' THEN 'record' ELSE format_type(p.oid, p.modifier) END, p.path
FROM parts p JOIN pg_type t ON t.oid = p.oid LEFT JOIN pg_type i ON i.typarray = t.oid
WHERE t.typtype NOT IN ('d', 'r', 'm') AND i.oid IS NULL"""


class Asking(Protocol):
    """What this needs of a session."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `$n` parameters and return its rows."""


@dataclass(frozen=True)
class Loss:
    """A condition on staged rows of which a value would be another one, and what is said where there is one."""

    name: str
    native: str
    condition: str
    is_cut: bool = False

    def error(self) -> SchemaMismatchError:
        """Say that a value has more than its column keeps."""
        if self.is_cut:
            return SchemaMismatchError(
                f"The column {self.name} would get a value that is longer than {self.native} keeps; shorten it in a "
                "step.",
                code="value.too_long",
            )
        return SchemaMismatchError(
            f"The column {self.name} would get a value with more digits than {self.native} keeps; round it in a step.",
            code="value.precision",
        )


@dataclass(frozen=True)
class _Column:
    """A staged column, the type that it becomes, and what that is made of in the end: of its items or bounds the type
    with its length or digits. `path` says through what: arrays (`a`), ranges (`r`) and such of many ranges (`m`).
    """

    name: str
    native: str
    bound: str
    path: str = ""

    @property
    def is_array(self) -> bool:
        """Whether it is an array, of values or of ranges."""
        return self.path.startswith("a")

    @property
    def range(self) -> str:
        """Whether it is a range, or an array of ranges."""
        return self.path[-1:] if self.path[-1:] in ("r", "m") else ""

    @property
    def is_nested(self) -> bool:
        """Whether arrays or ranges are within each other, through a domain, as no type of Postgres' own is."""
        return self.path not in ("", "a", "r", "m", "ar", "am")

    @property
    def base(self) -> str:
        """What the values are, without length and digits."""
        return _FIELDS.sub("interval", MODIFIER.sub("", self.bound))

    @property
    def is_plain(self) -> bool:
        """Whether it is spelled as what it is made of."""
        return self.native == self.bound and not self.is_array

    @property
    def is_own_length(self) -> bool:
        """Whether what the column itself says of length and digits is all that there is."""
        return self.native == self.bound + self.items and self.path in ("", "a")

    @property
    def is_written_otherwise(self) -> str:
        """Say that it is written otherwise than the table would have it, but for zeros at the end of a number."""
        return f"{_without_zeros(self.given)} IS DISTINCT FROM {_without_zeros(self.kept)}"

    @property
    def has_other_numbers(self) -> str:
        """Say that the numbers in its text are others than those that the table would have, in whatever order."""
        given, kept = (
            f"ARRAY(SELECT m[1]::numeric AS n FROM regexp_matches({text}::text, {_NUMBER}, 'g') AS m ORDER BY n)"
            for text in (self.given, self.kept)
        )
        return f"{given} IS DISTINCT FROM {kept}"

    @property
    def given(self) -> str:
        """The value as it is staged."""
        return quote(self.name)

    @property
    def kept(self) -> str:
        """The value as it would be in the table."""
        return f"{quote(self.name)}::{self.native}"

    @property
    def items(self) -> str:
        """What makes an array of a type, if this is one."""
        return "[]" if self.is_array else ""

    def differs(self, wide: str, through: str = "") -> str:
        """Say that it is another value than in a type without bounds."""
        wide += self.items
        return f"{self.given}::{wide} IS DISTINCT FROM {self.kept}{through}::{wide}"

    def loss(self, *conditions: str, is_cut: bool = False) -> Loss | None:
        """One of these conditions, if there is any."""
        found = [f"({condition})" for condition in conditions if condition]
        return Loss(self.name, self.native, " OR ".join(found), is_cut) if found else None

    def has(self, pattern: str) -> str:
        """Say that it has this in its text."""
        return f"{self.given}::text ~ {pattern}"


def refuse_losses(session: Asking, stage: str, natives: Mapping[str, str]) -> None:
    """Look whether staged rows hold a value that a column of these types would change.

    Raises:
        SchemaMismatchError: they do (`value.precision`, `value.too_long`).
    """
    found = map(_loss, _columns(session, natives))
    if not (losses := [loss for loss in found if loss is not None]):
        return
    seen = session.execute(f"SELECT {', '.join(f'bool_or({loss.condition})' for loss in losses)} FROM {stage}")
    for loss, is_lost in zip(losses, seen[0], strict=True):
        if is_lost:
            raise loss.error()


def _columns(session: Asking, natives: Mapping[str, str]) -> list[_Column]:
    asked = {native for native in natives.values() if not is_own(native) or _RANGE.search(native)}
    rows = session.execute(_MADE_OF, (json.dumps(sorted(asked)),)) if asked else []
    made_of = {name: made for name, *made in rows}
    return [
        _Column(name, native, *made_of.get(native, (native.removesuffix("[]"), "a" if native.endswith("[]") else "")))
        for name, native in natives.items()
    ]


def _loss(column: _Column) -> Loss | None:
    base = column.base
    if base == _ROWS:
        return column.loss(column.is_written_otherwise)
    if column.is_nested:
        return _of_nested(column)
    if column.range:
        return _of_bounds(column)
    # The insert itself tells of letters and bits beyond a column's own length, and cuts blanks there, as SQL wants it.
    if base in _LETTERS and (not column.is_own_length or base in ("name", '"char"')):
        blanks = f"::text{column.items}::bpchar{column.items}"
        cut = f'{column.given}{blanks} COLLATE "C" IS DISTINCT FROM {column.kept}{blanks}'
        return column.loss(cut, is_cut=True)
    if base in _BITS and not column.is_own_length:
        return column.loss(column.differs("bit varying"), is_cut=True)
    if base in _CLOCKS:
        return _of_clocks(column)
    return _of_numbers(column)


def _without_zeros(value: str) -> str:
    kept = f"regexp_replace({value}::text, '([.][0-9]*[1-9])0+(?![0-9])', E'\\\\1', 'g')"
    return f"regexp_replace({kept}, '[.]0+(?![0-9])', '', 'g')"


def _of_bounds(column: _Column) -> Loss | None:
    """Compare what bounds become with what they would be in a range that keeps more, or as they are written."""
    base, is_limited = column.base, column.bound != column.base
    digits = column.has(_DIGITS) if base in _CLOCKS else ""
    if base == "date":  # Bounds of days are told by others, so only a time is looked for.
        return column.loss(f"regexp_replace({column.given}::text, {_MIDNIGHT}, '', 'g') ~ ':'")
    if base in _WIDE and (is_limited or base in _FLOATS or base == _NAIVE):
        wide = f"::text::{_WIDE[base][column.range == 'm']}{column.items}"
        return column.loss(digits, f"{column.given}{wide} IS DISTINCT FROM {column.kept}{wide}")
    return column.loss(digits, column.is_written_otherwise if is_limited else "")


def _of_nested(column: _Column) -> Loss | None:
    """Look at what is written: no type keeps more of arrays within arrays."""
    base, digits = column.base, column.has(_DIGITS) if column.base in _CLOCKS else ""
    if base in ("numeric", *_FLOATS, *_PLACES):
        return column.loss(column.has_other_numbers)
    if base == "money":
        return column.loss(column.has(_CENTS))
    is_narrow = column.bound != base or base in ("name", '"char"', "date", *_CLOCKS)
    return column.loss(digits, column.is_written_otherwise if is_narrow else "")


def _of_clocks(column: _Column) -> Loss | None:
    base = column.base
    if column.native == base != _ZONED:  # It does not come as text.
        return None
    digits, kept = column.has(_DIGITS), f"{column.kept}::{base}{column.items}"
    if base == _NAIVE:  # Of text with a zone it would keep the rest.
        moment = f"{column.given}::timestamp with time zone{column.items}::{base}{column.items}"
        return column.loss(digits, f"{moment} IS DISTINCT FROM {kept}")
    if base == _ZONED:  # And of a moment all but the day.
        return column.loss(digits, column.has(_DAY), column.differs(base))
    if base.startswith("time "):  # So it would of a time with a day or a zone.
        return column.loss(digits, column.has("'[+-]'"), column.differs(base))
    return column.loss(digits, column.differs(base))


def _of_numbers(column: _Column) -> Loss | None:
    base = column.base
    if base == "money":
        return column.loss(column.has(_CENTS))
    if base in _FLOATS and not column.is_plain:
        return column.loss(column.differs("numeric", "::text"))
    if base == "numeric" and (column.bound != base or not column.is_own_length):
        return column.loss(column.differs(base))
    if base == "date" and not column.is_plain:
        return column.loss(f"CASE WHEN {column.has(_CLOCK)} THEN {column.differs('timestamp')} END")
    if base in _PLACES:
        of_points = column.has("'[(]'") if base == "line" else "false"  # What a line through two points is, is counted.
        return column.loss(f"NOT {of_points} AND {column.has_other_numbers}")
    return column.loss(column.has("'-'")) if base in _UNSIGNED else None
