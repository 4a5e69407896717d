"""Reading refused rows as a source, for a replay; the same for every store that lists them."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import ConflictError
from domain.failpoints import fail_at
from domain.loads.checkpoint import Merged, Position
from domain.loads.quarantine import PLACE, Refusals, RefusedRow, RefusedState
from domain.loads.read_set import SourcePlan, streams_between
from domain.ports.data_store import Batch, IReader, JudgedBatch, SourceBatch, Target
from domain.ports.quarantine import IRefusedRows
from domain.quality.measures import Counts
from domain.runs.lane import Lane
from domain.stores.table import ORDINAL, Column
from infrastructure.tabular.arrow import row_too_large, to_table
from infrastructure.tabular.digests import digest_of, digests
from infrastructure.tabular.json_rows import decoded, guessed_of, merged_shape

MOST_READ_AGAIN = 100_000
"""So many open refusals are looked at by a run that may read their rows again."""
PAGE_ROWS = 32_768
_FIRST_LETTERS = 32
PAGE_BYTES = 16 * 1024 * 1024
"""A page of refused rows has so many at most, and so many bytes: each row of it is a dozen values in memory at once."""


def fitting(sizes: Sequence[int], most: int | None) -> int:
    """How many rows of these sizes there is room for: one at least."""
    return len(sizes) if most is None else max(1, sum(total <= most for total in accumulate(sizes)))


async def plan_refused(store: IRefusedRows, refusals: Refusals) -> SourcePlan:
    """Plan the read of refused rows: the columns they have between them, in the order of their places.

    Raises:
        ConflictError: there are none (`quarantine.empty`).
        InvalidInputError: a column had several types.
    """
    shapes = await store.refused_shapes(refusals)
    if not shapes:
        raise ConflictError(f"{refusals.pipeline} has no refused rows to replay.", code="quarantine.empty")
    columns, is_text = merged_shape(shapes)
    return SourcePlan(
        columns=tuple((column.name, column.type) for column in columns),
        streams=streams_between(()),
        ordered=True,
        order=PLACE,
        is_text=is_text,
        guessed=guessed_of(shapes),
    )


class RefusedReader(IReader):
    """Reads refused rows page by page, each row with its place."""

    def __init__(self, store: IRefusedRows, refusals: Refusals, plan: SourcePlan, size: tuple[int, int]) -> None:
        self._store = store
        self._refusals = refusals
        self._plan = plan
        self._batch_rows, self._batch_bytes = size

    async def batches(self, after: Position | None, *, limit: int | None = None) -> AsyncGenerator[SourceBatch, None]:
        left = limit
        while left is None or left > 0:
            wanted = min(self._batch_rows, PAGE_ROWS) if left is None else min(self._batch_rows, PAGE_ROWS, left)
            page = await self._store.refused_rows(
                self._refusals,
                after=after,
                limit=wanted,
                most_bytes=min(self._batch_bytes, PAGE_BYTES),
            )
            if not page:
                return
            for rows in self._cut(page):
                fail_at("extract.mid_page")
                yield await asyncio.to_thread(self._batch, rows)
            after = page[-1].place
            left = None if left is None else left - len(page)

    def _cut(self, page: Sequence[RefusedRow]) -> list[Sequence[RefusedRow]]:
        borders, size = [0], 0
        for number, row in enumerate(page):
            length = len(row.record)
            if length > self._batch_bytes:
                raise row_too_large(self._batch_bytes)
            size += length
            if size > self._batch_bytes:
                borders.append(number)
                size = length
        return [page[start:end] for start, end in pairwise([*borders, len(page)])]

    def _batch(self, rows: Sequence[RefusedRow]) -> SourceBatch:
        columns = [Column(name, kind) for name, kind in self._plan.columns]
        data = decoded([row.record for row in rows], columns, is_text=self._plan.is_text)
        places = tuple(row.place for row in rows)
        return SourceBatch(data, places[-1], places)


def still_open(batch: JudgedBatch, found: Collection[Position], target: Target) -> tuple[JudgedBatch, Merged | None]:
    """A replayed batch without the rows that other runs have settled since they were read, and what that changes the
    counts by: they stay as they are, like those that are refused again, and count as if they had not been read. `found`
    are the places of rows that are open.
    """
    gone = [ordinal for ordinal, place in enumerate(batch.origins or ()) if place not in found]
    if not gone:
        return batch, None
    rows, refused = to_table(batch.accepted), to_table(batch.refused)
    is_gone = pc.is_in(rows.column(ORDINAL), value_set=pa.array(gone, pa.int64()))
    lost = rows.filter(is_gone).column(ORDINAL)
    again = set(refused.column("ordinal").to_pylist())
    staying = pa.Table.from_pylist([{"ordinal": n} for n in gone if n not in again], refused.schema)
    batch = replace(batch, accepted=rows.filter(pc.invert(is_gone)), refused=pa.concat_tables([refused, staying]))
    sources = len(pc.unique(lost))
    left = Counts(read=-sources, used=-sources, produced=-len(lost))
    return batch, Merged(is_counted=target.merges, left=left)


def repaired_places(batch: JudgedBatch) -> list[Position]:
    """The places of a replayed batch's rows that were not refused again."""
    again = set(to_table(batch.refused).column("ordinal").to_pylist())
    return [place for ordinal, place in enumerate(batch.origins or ()) if ordinal not in again]


def may_be_read_again(lane: Lane, target: Target) -> Refusals:
    """The refusals that a run of a lane may supersede by reading their rows again."""
    return Refusals(lane.organization, lane.pipeline, target.table, state=RefusedState.OPEN, lane=lane.name)


class ReadAgain:
    """Open refusals of earlier runs by the key of their source row; says which of these rows a batch has again.

    Keys may be as long as rows: of each a digest is kept, and of its first value a number or the beginning of a text.
    """

    def __init__(self, key: Sequence[str], refused: Iterable[RefusedRow]) -> None:
        self._key = tuple(key)
        self._places: dict[bytes, list[Position]] = defaultdict(list)
        self._firsts: set[str | int] | None = set()
        for row in refused:
            record = json.loads(row.record)
            values = {name: record.get(name) for name in self._key}
            if None in values.values():  # NULL is no key.
                continue
            read_set, stream, *rest = row.place
            place = (sys.intern(read_set), sys.intern(stream), *rest)
            self._places[digest_of(json.dumps(values, ensure_ascii=False))].append(place)
            self._note_first(values[self._key[0]])

    def places(self, batch: Batch) -> list[Position]:
        """The refusals of which a batch has the rows."""
        rows = to_table(batch)
        if not self._places or not set(self._key) <= set(rows.column_names):
            return []
        rows = self._sifted(rows.select(self._key))
        return [place for found in digests(rows) for place in self._places.get(found, ())]

    def _note_first(self, value: object) -> None:
        if self._firsts is None:
            return
        if isinstance(value, str):
            self._firsts.add(value[:_FIRST_LETTERS])
        elif isinstance(value, int) and abs(value) < 2**64:
            self._firsts.add(value)
        else:
            self._firsts = None

    def _sifted(self, rows: pa.Table) -> pa.Table:
        """Leave out most rows where that is quick: to write every key as text takes far longer."""
        values, wanted = rows.column(0), self._firsts or set()
        is_text = pa.types.is_string(values.type)
        is_plain = is_text or pa.types.is_integer(values.type)
        fitting = [value for value in wanted if isinstance(value, str) is is_text]
        if not is_plain or not fitting or len(fitting) < len(wanted):
            return rows
        try:
            # A letter is one code point here and there.
            firsts = pc.utf8_slice_codeunits(values, 0, _FIRST_LETTERS) if is_text else values
            return rows.filter(pc.is_in(firsts, pa.array(fitting, firsts.type)))
        except (pa.ArrowInvalid, OverflowError):  # The column was wider when they were refused.
            return rows
