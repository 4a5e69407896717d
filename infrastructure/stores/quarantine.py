"""Reading refused rows as a source, for a replay; the same for every store that lists them."""

from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise

from domain.errors import ConflictError
from domain.failpoints import fail_at
from domain.pipelines.checkpoint import Position
from domain.pipelines.quarantine import PLACE, Refusals, RefusedRow
from domain.pipelines.read_set import SourcePlan, streams_between
from domain.pipelines.table import Column
from domain.ports.data_store import IReader, JudgedBatch, SourceBatch
from domain.ports.quarantine import IRefusedRows
from infrastructure.arrow import row_too_large, to_table
from infrastructure.records import decoded, guessed_of, merged_shape


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
            wanted = self._batch_rows if left is None else min(left, self._batch_rows)
            page = await self._store.refused_rows(self._refusals, after=after, limit=wanted)
            if not page:
                return
            for rows in self._cut(page):
                fail_at("extract.mid_page")
                yield self._batch(rows)
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


def repaired_places(batch: JudgedBatch) -> list[Position]:
    """The places of a replayed batch's rows that were not refused again."""
    again = set(to_table(batch.refused).column("ordinal").to_pylist())
    return [place for ordinal, place in enumerate(batch.origins or ()) if ordinal not in again]
