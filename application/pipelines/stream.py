"""The heart: one stream from its position to its end, batch by batch, each with its checkpoint."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from application.connections.open_stores import OpenStores
from application.pipelines.overlap import ahead
from domain.errors import ConversionError
from domain.pipelines.checkpoint import CheckpointUpdate, Position, StreamState, merge_stats
from domain.pipelines.report import StreamReport
from domain.pipelines.spec import OnError
from domain.ports.data_store import JudgedBatch, SourceBatch
from domain.ports.engine import OnProgress, Progress, Stop, StreamTask
from domain.ports.transformer import IPreparedTransform, ITransformer

T = TypeVar("T")


@dataclass(frozen=True)
class StreamRunner:
    """Runs one stream wherever an engine puts it."""

    stores: OpenStores
    transformer: ITransformer

    async def run(self, task: StreamTask, stop: Stop, on_progress: OnProgress) -> StreamReport:
        """Read, judge and commit until the stream ends or there is a reason to stop.

        Raises:
            FencedError: a newer owner has taken over.
            QualityRejectedError, ConversionError: a batch was refused and not committed.
        """
        read_set, state, retries = task.read_set, _seen(task), 0
        source = await self.stores.get(task.lane.organization, task.source)
        destination = await self.stores.get(task.lane.organization, task.destination)
        left = None if read_set.plan.limit is None else read_set.plan.limit - state.counts.read
        started, batches, size_bytes = time.monotonic(), 0, 0
        async with (
            self.transformer.prepare(task.transform) as transform,
            source.reader(
                task.spec.source, read_set.plan, task.stream, batch_rows=read_set.batch_rows, snapshot=task.snapshot
            ) as reader,
            destination.writer(task.lane, task.target, read_set.id, task.stream.name, task.fence) as writer,
            aclosing(_judged(reader.batches(state.position, limit=left), transform)) as judging,
            aclosing(ahead(judging)) as judged_ahead,
        ):
            async for (batch, judged), is_last in _with_last(judged_ahead):
                begun = time.monotonic()
                state = _after(state, judged, batch.position, is_last=is_last)
                _check_conversions(task.spec.on_error, state)
                retries += await writer.commit(judged, _checkpoint(state))
                batches, size_bytes = batches + 1, size_bytes + batch.data.nbytes
                counts = judged.counts
                on_progress(Progress(state.stream, state.seq, counts.read, counts.used, time.monotonic() - begun))
                if stop() is not None:
                    break
            else:
                if not state.is_done:  # There was no row left, so no batch could say that it is the last one.
                    state = _after(state, transform.empty(), state.position, is_last=True)
                    retries += await writer.commit(transform.empty(), _checkpoint(state))
        return StreamReport(
            stream=state.stream,
            counts=state.counts,
            seq=state.seq,
            rows_read=state.counts.read - task.state.counts.read,
            batches=batches,
            bytes_read=size_bytes,
            seconds=time.monotonic() - started,
            retries=retries,
            interrupted=not state.is_done,
            stats=state.stats,
        )


async def _judged(
    batches: AsyncGenerator[SourceBatch, None], transform: IPreparedTransform
) -> AsyncGenerator[tuple[SourceBatch, JudgedBatch], None]:
    """Transform and judge each batch; the store reads the next one meanwhile, and the one before is written."""
    async with aclosing(batches):
        async for batch in batches:
            yield batch, await transform.apply(batch.data)


def _seen(task: StreamTask) -> StreamState:
    """Note in the stream's measures which snapshot of the source this attempt reads."""
    label = f"{task.fence}:{task.snapshot or task.stream.name}"
    return replace(task.state, stats=merge_stats(task.state.stats, {"snapshots": {label: 1}}))


def _after(state: StreamState, judged: JudgedBatch, position: Position | None, *, is_last: bool) -> StreamState:
    return replace(
        state,
        seq=state.seq + 1,
        position=position,
        state="done" if is_last else "loading",
        counts=state.counts + judged.counts,
        stats=merge_stats(state.stats, judged.stats),
    )


def _checkpoint(state: StreamState) -> CheckpointUpdate:
    return CheckpointUpdate(state.seq, state.position, state.counts, state.stats, is_last=state.is_done)


def _check_conversions(on_error: OnError, state: StreamState) -> None:
    """Refuse the batch when too many rows failed to convert; a share is judged once the stream is at its end."""
    counts = state.counts
    judged = on_error if state.is_done else replace(on_error, max_share=None)
    if judged.allows(counts.failed, counts.read):
        return
    first = next((error["message"] for error in state.stats.get("first_errors", [])), "")
    raise ConversionError(
        f"{counts.failed} of {counts.read} rows did not convert ({first}), more than on_error allows; "
        "the batch was not committed."
    )


async def _with_last(items: AsyncIterator[T]) -> AsyncIterator[tuple[T, bool]]:
    """Say of each item whether it is the last one, looking one ahead."""
    waiting: list[T] = []
    async for item in items:
        if waiting:
            yield waiting.pop(), False
        waiting.append(item)
    for item in waiting:
        yield item, True
