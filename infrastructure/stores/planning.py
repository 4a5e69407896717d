"""How a read is planned: what is worked out from the answers that a store gives to a few questions, in every store."""

from dataclasses import dataclass
from typing import Protocol

from domain.errors import InvalidInputError
from domain.loads.horizon import ReadEnd
from domain.loads.read_set import SourcePlan, Stream, streams_between
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import Column
from infrastructure.stores.cursor_ends import CursorEnd
from infrastructure.stores.cursors import integer_of, is_integer_cursor, looked_back, moment_of
from infrastructure.stores.partitions import check_column, is_partitioned, ranges
from infrastructure.stores.positions import MAX_TIES


class Asked(Protocol):
    """A source in one transaction, as planning asks of it; blocking. Bounds are of the cursor, as text."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the source, in types of our names."""

    def check_cursor(self, name: str) -> None:
        """Refuse a cursor that holds NULL (`cursor.null`), unless finding the end of the read has seen to it."""

    def limited(self, cursor: Column, lo: str | None, hi: str, limit: int) -> str:
        """Where a read ends that takes so many rows: the value of the first one that it leaves, `hi` where there is
        none. The rows of one value stay together.
        """

    def is_proved(self) -> bool:
        """Whether the catalog proves that no two rows share their place in the source's order, and that none lacks a
        part of it.
        """

    def why_untrusted(self, lo: str | None, hi: str | None, *, looks_for_ties: bool) -> str | None:
        """Why a key that is not proved is no place to go on from: NULL in it, or more rows of one key than MAX_TIES.

        Raises:
            InvalidInputError: values of a column of it have no order (`key.type`).
        """

    def extremes(self, column: Column, lo: str | None, hi: str | None) -> tuple[str | None, str | None]:
        """The least and the greatest value of a column, as text."""

    def warnings(self) -> tuple[str, ...]:
        """What whoever reads the plan has to know."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read: from `lo` on and below `hi`, so many rows at most; `before` is where the lane's last read
    ended.
    """

    source: SourceSpec
    lo: str | None
    hi: str | None
    limit: int | None
    before: ReadEnd | None


def planned(wanted: Wanted, end: CursorEnd | None, asked: Asked) -> SourcePlan:
    """Plan a read whose cursor, if it has one, may be read up to an end; blocking.

    Raises:
        InvalidInputError: the source has no such column (`source.column_missing`), and as the questions do.
    """
    source, limit = wanted.source, wanted.limit
    kinds = {column.name: column.type for column in asked.columns}
    for name in source.order:
        if name not in kinds:
            raise InvalidInputError(f"The source has no column {name}.", code="source.column_missing")
    begin, hi, why = None, None, None
    if source.cursor is not None and end is not None:
        cursor = Column(source.cursor.column, kinds[source.cursor.column])
        asked.check_cursor(cursor.name)
        hi, why = end.cut(_lower(end.hi, wanted.hi, source.cursor, cursor.type), wanted.before)
        if limit is not None:
            hi, why = end.cut(asked.limited(cursor, wanted.lo, hi or end.hi, limit), wanted.before)
        begin = looked_back(wanted.lo, source.cursor, cursor.type)
    proved = asked.is_proved()
    looks = limit is None or limit > MAX_TIES
    untrusted = None if proved else asked.why_untrusted(begin, hi, looks_for_ties=looks)
    is_split = is_partitioned(source, limit) and untrusted is None
    return SourcePlan(
        columns=tuple((column.name, column.type) for column in asked.columns),
        streams=_streams(source, kinds, asked, begin, hi) if is_split else streams_between(()),
        partition=source.partitions.column if source.partitions and is_split else None,
        ordered=bool(source.order) and untrusted is None,
        is_proved=proved,
        untrusted=untrusted,
        order=source.order,
        lo=begin,
        hi=hi,
        limit=None if source.cursor else limit,
        end=why,
        warnings=asked.warnings(),
    )


def _lower(end: str, hi: str | None, cursor: CursorSpec, kind: str) -> str:
    """The lower of two ends: where all can be seen, and where whoever asks wants to stop."""
    if hi is None:
        return end
    if is_integer_cursor(cursor, kind):
        return min(end, hi, key=lambda text: integer_of(text, cursor, kind))
    return min(end, hi, key=lambda text: moment_of(text, cursor, kind))


def _streams(
    source: SourceSpec, kinds: dict[str, str], asked: Asked, lo: str | None, hi: str | None
) -> tuple[Stream, ...]:
    assert source.partitions is not None
    column = Column(source.partitions.column, check_column(source.partitions, kinds))
    return ranges(source.partitions, column.type, *asked.extremes(column, lo, hi))
