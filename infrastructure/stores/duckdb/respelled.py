"""Values of a merge that DuckDB holds equal to others and does not write, or writes otherwise: 30 days over 1 month,
-0.0 over 0.0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from domain.stores.table import DELETED, SEQ
from infrastructure.sql import quote, quote_table
from infrastructure.stores.sql.merge import Merge
from infrastructure.stores.sql.session import Session
from infrastructure.tabular.nested_types import cut, unquoted

_MOVED = "_headrace_moved"
_ROW = "_headrace_row"
_FLOATS = ("FLOAT", "DOUBLE")


@dataclass(frozen=True)
class DuckDBMerge(Merge):
    """A merge that looks for the last row of each key by its number: of a row of DISTINCT ON, which DuckDB makes of
    aggregates, a FLOAT's zero has lost its sign.
    """

    @property
    def rows(self) -> str:
        if self.is_distinct:
            return super().rows
        given = f"(SELECT * FROM {self.using})"
        last = f"(SELECT {self.key}, max({quote(SEQ)}) AS {quote(SEQ)} FROM {given} GROUP BY {self.key})"
        return f"(SELECT * FROM {given} SEMI JOIN {last} USING ({self.key}, {quote(SEQ)}) ORDER BY {self.key})"


def write_respelled(session: Session, merging: Merge, natives: Mapping[str, str], kept: Sequence[str]) -> None:
    """Delete the rows in which such a value comes and insert them as they will be, with the columns that are `kept`
    because only the table knows them: the merge that follows finds the values there, and counts the rows as updated.
    """
    compared = [name for name in merging.names if any(_leaves("", natives[name]))]
    if not compared:
        return
    table = quote_table(merging.target.table)
    coming = " OR ".join(
        _may_be_left(value, kind) for name in compared for value, kind in _leaves(_given(name, natives), natives[name])
    )
    left = " OR ".join(_is_left(name, natives) for name in compared)
    found = f"(SELECT * FROM (SELECT * FROM {merging.using}) AS source WHERE {coming}) AS source"
    # Without looking for the last row of each key, which costs more and is needed only if this finds something.
    if not session.execute(f"SELECT 1 FROM {found} JOIN {table} AS target ON {merging.on} WHERE {left} LIMIT 1"):
        return
    living = f" AND NOT source.{quote(DELETED)}" if merging.target.deletes else ""
    values = [f"{_given(name, natives)} AS {quote(name)}" for name in merging.names]
    values += [f"target.{quote(name)}" for name in kept]
    session.execute(
        f"CREATE TEMPORARY TABLE {_MOVED} AS SELECT target.rowid AS {_ROW}, {', '.join(values)} FROM {table} AS target "
        f"JOIN {merging.rows} AS source ON {merging.on} WHERE ({left}) AND {merging.is_older}{living}"
    )
    names = ", ".join(quote(name) for name in [*merging.names, *kept])
    session.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT {_ROW} FROM temp.{_MOVED})")
    session.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM temp.{_MOVED}")
    session.execute(f"DROP TABLE temp.{_MOVED}")


def _given(name: str, natives: Mapping[str, str]) -> str:
    return f"CAST(source.{quote(name)} AS {natives[name]})"


def _leaves(value: str, native: str) -> Iterator[tuple[str, str]]:
    """The values in one that are updated in place and held equal otherwise than by what they are; a row with a list, a
    map or a union is written anew by DuckDB itself.
    """
    if native in _FLOATS or native == "INTERVAL":
        yield value, native
    for name, kind in _fields(native):
        yield from _leaves(_field(value, name), kind)


def _may_be_left(value: str, kind: str) -> str:
    return f"{value} = 0" if kind in _FLOATS else f"{value} IS NOT NULL"


def _is_left(name: str, natives: Mapping[str, str]) -> str:
    """Say that a value comes over an equal one, or over NULL, below which there may still be the one before it."""
    pairs = zip(
        _leaves(_given(name, natives), natives[name]), _leaves(f"target.{quote(name)}", natives[name]), strict=True
    )
    said = []
    for (source, kind), (target, _) in pairs:
        if kind in _FLOATS:
            is_other = f"{source} = 0 AND ({target} IS NULL OR {target} = 0 AND signbit({source}) <> signbit({target}))"
        else:
            spelled = f"CAST({source} AS VARCHAR) <> CAST({target} AS VARCHAR)"
            is_other = f"{source} IS NOT NULL AND ({target} IS NULL OR {source} = {target} AND {spelled})"
        said.append(f"({is_other})")
    return " OR ".join(said)


def _fields(native: str) -> Iterator[tuple[str, str]]:
    if native.startswith("STRUCT(") and native.endswith(")"):
        for part in cut(native[7:-1], ","):
            name, *kind = cut(part, " ")
            yield unquoted(name), " ".join(kind)


def _field(value: str, name: str) -> str:
    literal = name.replace("'", "''")
    return f"struct_extract({value}, '{literal}')"
