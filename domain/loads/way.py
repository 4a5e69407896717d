"""Which way rows take from source to destination, and why: within the database, undecoded, as text, or
through Arrow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Way(StrEnum):
    """How rows travel."""

    IN_DATABASE = "in-database"
    PASS_THROUGH = "pass-through"
    TEXT = "text"
    ARROW = "arrow"


@dataclass(frozen=True)
class Wire:
    """What a store says of rows on the wire: the format, and the store's own type of each column in it.

    A type is None where it is not the same on another database, such as an enum. `is_seekable` says that the borders of
    a batch are found by an index, without reading what lies between.
    """

    format: str
    types: Mapping[str, str | None] = field(default_factory=dict)
    is_seekable: bool = False


@dataclass(frozen=True)
class Passage:
    """How rows pass undecoded: source columns in their order, then the metadata columns as constants.

    `run_id` None leaves that column out; `has_loaded_at` asks for the time of each batch. `seen` are the columns that
    rules look at, which are handed out decoded beside the bytes.
    """

    columns: tuple[str, ...]
    run_id: str | None = None
    has_loaded_at: bool = False
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What the choice depends on, gathered by whoever asks.

    `keeps_values`: no step and no conversion changes a row; `only_converts`: the rows are text, and nothing but the
    conversion to the types of their columns does. `seen`: the columns that rules look at, of `width`
    columns in all. `is_one_store`: source and
    destination are one database; `may_run_inside`: the source may be part of a writing statement there.
    `reading`, `landing`: the two wires, where a store has one. `ordered`: the read has a
    total order. `is_split`: it has several streams, which see one snapshot.
    """

    keeps_values: bool
    only_converts: bool = False
    seen: tuple[str, ...] = ()
    width: int = 0
    merges: bool = False
    is_limited: bool = False
    ordered: bool = True
    is_split: bool = False
    is_one_store: bool = False
    may_run_inside: bool = False
    reading: Wire | None = None
    landing: Wire | None = None

    @property
    def may_pass(self) -> bool:
        """Nothing about the pipeline itself forces its rows to be decoded; the stores have to be asked."""
        return _why_decoded(self) is None


@dataclass(frozen=True)
class Route:
    """The chosen way and the reason in words."""

    way: Way
    reason: str
    seen: tuple[str, ...] = ()


TEXT_WIRE = Wire("text")
"""Text on its way to a destination that converts it; its types are those of the columns there."""
WIDE = 100
"""Columns of text; more are not converted all in one statement."""
_CHANGED = "a transform or conversion changes the rows"
DECODED = Route(Way.ARROW, "nothing else was planned")


def choose_way(facts: Facts) -> Route:
    """Choose the fastest way that keeps every promise."""
    decoded = _why_decoded(facts)
    if decoded is not None:
        return Route(Way.ARROW, decoded)
    if facts.only_converts:
        if facts.reading is not None and facts.reading.format == TEXT_WIRE.format and facts.reading == facts.landing:
            return Route(
                Way.TEXT, "the destination converts the text while it writes it, and nothing else looks at the rows"
            )
        return Route(Way.ARROW, _CHANGED)
    is_inside = facts.is_one_store and facts.may_run_inside and not facts.is_split
    if is_inside and not facts.seen and not _differs(facts):
        return Route(Way.IN_DATABASE, "source and destination are one database, and nothing looks at the rows")
    if facts.reading is None or facts.landing is None or facts.reading.format != facts.landing.format:
        return Route(Way.ARROW, "the two stores share no wire format")
    if not facts.ordered:
        return Route(Way.ARROW, "the source has no key by which undecoded rows could be cut into batches")
    if not facts.reading.is_seekable:
        return Route(Way.ARROW, "no index of the source is in the order of (cursor, key)")
    different = _differs(facts)
    if different is not None:
        return Route(Way.ARROW, f"the column {different} has another type at the destination")
    if facts.seen:
        reason = "both stores speak one wire format; only the columns that rules look at are decoded, beside the rows"
        return Route(Way.PASS_THROUGH, reason, facts.seen)
    return Route(Way.PASS_THROUGH, "both stores speak one wire format, and nothing looks at the rows")


def _why_decoded(facts: Facts) -> str | None:
    if facts.only_converts and facts.width > WIDE:
        return "a file of so many columns is converted some columns at a time"
    if not (facts.keeps_values or (facts.only_converts and not facts.seen)):
        return _CHANGED
    if 2 * len(facts.seen) > facts.width:
        return "quality rules look at most columns"
    if facts.merges:
        return "mode: merge keeps the last row of each key of a batch"
    if facts.is_limited:
        return "the run reads a limited number of rows"
    return None


def _differs(facts: Facts) -> str | None:
    return unlike(facts.reading.types, facts.landing.types) if facts.reading and facts.landing else None


def unlike(reading: Mapping[str, str | None], landing: Mapping[str, str | None]) -> str | None:
    """Name the first column whose bytes the destination would not store as the same value, or None."""
    for name, native in reading.items():
        there = landing.get(name)
        if native is None or there is None or not _takes(native, there):
            return name
    return None


def _takes(native: str, there: str) -> bool:
    if native == there:
        return True
    if there == "text":
        return native == "name" or native.startswith("character varying")
    return there == "numeric" and native.startswith("numeric(")
