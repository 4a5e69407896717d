"""The heart: one stream from its position to its end, batch by batch, each with its checkpoint."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from application.connections.open_stores import OpenStores
from application.loads.guesses import not_converted
from application.loads.news import StreamNews
from application.loads.overlap import ahead
from application.loads.patience import Patience
from application.loads.places import counted_in_report, placed, placed_in_report
from domain.errors import ConversionError, QualityRejectedError
from domain.loads.checkpoint import CheckpointUpdate, Position, StreamState
from domain.loads.report import StreamReport
from domain.loads.way import Way
from domain.pipelines.spec import OnError
from domain.ports.data_store import (
    Conversions,
    EncodedRows,
    IPassingReader,
    IPassingWriter,
    IReader,
    ISelectingWriter,
    ITextReader,
    ITextWriter,
    IWriter,
    JudgedBatch,
    SourceBatch,
    StreamSelection,
    TextRows,
    are_large,
    passage_of,
)
from domain.ports.engine import OnNews, Progress, Stop, StreamBegun, StreamEnded, StreamTask
from domain.ports.runtime import IClock
from domain.ports.telemetry import ISpan, ITelemetry
from domain.ports.transformer import IPreparedTransform, ITransformer
from domain.quality.measures import Counts, Measures

T = TypeVar("T")

_TEXT_BYTES = 1024 * 1024 * 1024
"""As much text lands in one transaction where the destination converts it; it is streamed, so none of it is held."""


@dataclass(frozen=True)
class StreamRunner:
    """Runs one stream wherever an engine puts it. What its way asks of a reader or writer, the wires of both stores
    have promised when it was chosen.
    """

    stores: OpenStores
    transformer: ITransformer
    patience: Patience
    clock: IClock
    telemetry: ITelemetry

    async def run(self, task: StreamTask, stop: Stop, on_news: OnNews) -> StreamReport:
        """Read, judge and commit until the stream ends or there is a reason to stop.

        Raises:
            FencedError: a newer owner has taken over.
            QualityRejectedError, ConversionError: a batch was refused and not committed.
        """
        name = task.stream.name
        with self.telemetry.span("stream", attributes={"headrace.stream": name}) as span:
            on_news(StreamBegun(name))
            try:
                report = await self._run(task, stop, on_news)
            except BaseException as error:
                on_news(StreamEnded(name, error=error))
                raise
            on_news(StreamEnded(name, report))
            span.set({"headrace.batches": report.batches, "headrace.rows.read": report.rows_read})
        return report

    async def _run(self, task: StreamTask, stop: Stop, on_news: OnNews) -> StreamReport:
        source = await self.stores.get(task.lane.organization, task.source)
        destination = await self.stores.destination(task.lane.organization, task.destination)
        news = StreamNews(task.stream.name, task.state.seq, on_news, self.telemetry, self.clock.monotonic)
        passed = _Passed(task, stop, news, self.clock.monotonic)
        async with destination.writer(
            task.lane, task.target, task.read_set.id, task.stream.name, task.fence, task.token
        ) as writer:
            if task.route.way is Way.IN_DATABASE:
                assert isinstance(writer, ISelectingWriter)
                await passed.select(writer)
            else:
                read_set = task.read_set
                async with source.reader(
                    task.spec.source,
                    read_set.plan,
                    task.stream,
                    batch_rows=read_set.batch_rows,
                    batch_bytes=read_set.batch_bytes,
                    snapshot=task.snapshot,
                    by=task.owner,
                ) as reader:
                    if task.route.way is Way.PASS_THROUGH:
                        assert isinstance(reader, IPassingReader)
                        assert isinstance(writer, IPassingWriter)
                        await self._pass_through(passed, task, reader, writer)
                    else:
                        await self._decoded(passed, task, reader, writer)
        return passed.report()

    async def _decoded(self, passed: "_Passed", task: StreamTask, reader: IReader, writer: IWriter) -> None:
        if task.route.way is Way.TEXT:
            conversions = self.transformer.conversions(task.transform)
            assert isinstance(reader, ITextReader)
            assert isinstance(writer, ITextWriter)
            if await passed.texts(reader, conversions, writer):
                return
        async with self.transformer.prepare(task.transform) as transform:
            batches = self.patience.each(reader.batches(passed.position, limit=passed.left), passed.news.reading)
            await passed.transform(batches, transform, writer, reader)

    async def _pass_through(
        self, passed: "_Passed", task: StreamTask, reader: IPassingReader, writer: IPassingWriter
    ) -> None:
        seen = task.route.seen
        async with (
            self.transformer.prepare(task.transform.of_columns(seen)) as look,
            self.transformer.prepare(task.transform) as transform,
        ):
            passage = passage_of(task.target, seen)
            await passed.pass_through(
                self.patience.each(reader.encoded(passed.position, passage), passed.news.reading),
                Judge(passed, reader, look, transform),
                writer,
            )


@dataclass(frozen=True)
class Judge:
    """Judges undecoded rows by the columns that rules look at, and decodes them where a row is refused."""

    passed: "_Passed"
    reader: IPassingReader
    look: IPreparedTransform
    transform: IPreparedTransform

    async def judged(
        self, ranges: AsyncGenerator[EncodedRows, None]
    ) -> AsyncGenerator[tuple[EncodedRows, JudgedBatch | None, Counts, Measures], None]:
        """Give each range with its counts and measures, and its decoded rows if not all of them may pass.

        Raises:
            QualityRejectedError: a rule with `on_violation: fail` was violated.
        """
        async with aclosing(ranges):
            async for rows in ranges:
                with self.passed.news.judging(rows.num_rows):
                    decoded, counts, measures = await self._judge(rows)
                yield rows, decoded, counts, measures

    async def _judge(self, rows: EncodedRows) -> tuple[JudgedBatch | None, Counts, Measures]:
        if rows.seen is None:
            return None, _untouched(rows.num_rows), Measures()
        seen = await self.look.apply(rows.seen)
        if seen.counts.used == rows.num_rows:
            return None, seen.counts, seen.measures
        judged = await self.transform.apply(await self.reader.decoded(rows))
        return judged, judged.counts, judged.measures


class _Passed:
    """What has passed so far, and the loops that move it on."""

    def __init__(self, task: StreamTask, stop: Stop, news: StreamNews, now: Callable[[], float]) -> None:
        self._task = task
        self._now = now
        self._stop = stop
        self.news = news
        self._state = _seen(task)
        self._started = self._now()
        self._batches = self._bytes = self._retries = 0

    async def transform(
        self,
        batches: AsyncGenerator[SourceBatch, None],
        transform: IPreparedTransform,
        writer: IWriter,
        reader: IReader,
    ) -> None:
        """Judge and commit batch by batch, each stage ahead of the next."""
        async with (
            aclosing(self._judged_batches(batches, transform, reader)) as judging,
            aclosing(ahead(judging, is_large=_is_large)) as judged_ahead,
        ):
            # A share can only be judged at the end, where the last batch must not have landed yet.
            is_alone = _is_large if self._task.spec.on_error.max_share is None else None
            async for (batch, judged), is_last in _with_last(judged_ahead, is_alone):
                with self.news.batch(self._state.seq + 1) as span:
                    begun = self._now()
                    measures = await placed_in_report(judged.measures, self._state, batch, reader)
                    judged = replace(judged, measures=measures)
                    self._state = _after(self._state, judged, batch.position, is_last=is_last)
                    if not _may_go_on(self._task.spec.on_error, self._state):
                        with self.news.losing(self._state.seq, judged.counts.read):
                            raise await not_converted(self._task, self._state, batch, judged, reader)
                    await self._commit(writer, judged)
                    if not self._goes_on(judged.counts, batch.data.nbytes, begun, span):
                        return
                del batch, judged  # Else they would be there while the next one is read.
        if not self._state.is_done:  # No batch could say that it is the last one: there was none, or it was alone.
            self._state = _after(self._state, transform.empty(), self._state.position, is_last=True)
            await self._commit(writer, transform.empty())

    async def _judged_batches(
        self, batches: AsyncGenerator[SourceBatch, None], transform: IPreparedTransform, reader: IReader
    ) -> AsyncGenerator[tuple[SourceBatch, JudgedBatch], None]:
        """Transform and judge each batch; the store reads the next one meanwhile, and the one before is written."""
        async with aclosing(batches):
            async for batch in batches:
                with self.news.judging(batch.data.num_rows):
                    try:
                        judged = await transform.apply(batch.data)
                    except QualityRejectedError as error:
                        error.first_errors = await placed(error.first_errors, batch, reader, stream=self._state.stream)
                        raise
                yield batch, replace(judged, origins=batch.origins, source=batch.data)
                del batch, judged

    @property
    def position(self) -> Position | None:
        """Where the stream stands."""
        return self._state.position

    @property
    def left(self) -> int | None:
        """How many rows the read may still give; None without a limit."""
        limit = self._task.read_set.plan.limit
        return None if limit is None else limit - self._state.counts.read

    async def pass_through(
        self, ranges: AsyncGenerator[EncodedRows, None], judge: Judge, writer: IPassingWriter
    ) -> None:
        """Commit ranges of undecoded rows while the next one is read."""
        async with aclosing(ahead(judge.judged(ranges), size=2)) as judging:
            async for (rows, decoded, counts, measures), is_last in _with_last(judging):
                with self.news.batch(self._state.seq + 1) as span:
                    begun = self._now()
                    told = counted_in_report(measures, self._state)
                    self._state = _moved(self._state, counts, told, rows.position, is_last=is_last)
                    if decoded:
                        await self._commit(writer, decoded)
                    else:
                        with self.news.committing(self._state.seq, counts.read):
                            self._retries += await writer.commit_encoded(rows, _checkpoint(self._state))
                    if not self._goes_on(counts, rows.nbytes, begun, span):
                        return
        if not self._state.is_done:
            self._state = _moved(self._state, Counts(), Measures(), self._state.position, is_last=True)
            await self._commit(writer, judge.transform.empty())

    async def texts(self, reader: ITextReader, conversions: Conversions, writer: ITextWriter) -> bool:
        """Let the destination convert text while it writes it; False where a value does not convert: nothing of its
        part has landed, and who looks at every row has to say which one it is.
        """
        run = self._task.spec.run
        parts = reader.texts(
            self._state.position, max_rows=run.batch_rows or sys.maxsize, max_bytes=run.batch_bytes or _TEXT_BYTES
        )
        async with aclosing(parts):
            async for part in parts:
                begun, before = self._now(), self._state

                def checkpoint_of(part: TextRows = part, before: StreamState = before) -> CheckpointUpdate:
                    self._state = _moved(
                        before, _untouched(part.num_rows), Measures(), part.position, is_last=part.is_last
                    )
                    return _checkpoint(self._state)

                with self.news.batch(before.seq + 1) as span:
                    with self.news.committing(before.seq + 1, part.num_rows):
                        try:
                            await writer.commit_texts(part, conversions, before.counts.produced, checkpoint_of)
                        except ConversionError:
                            self._state = before
                            return False
                    counts = _untouched(part.num_rows)
                    if not self._goes_on(counts, part.nbytes, begun, span) or self._state.is_done:
                        return True
        return False  # There was no row left.

    async def _commit(self, writer: IWriter, batch: JudgedBatch) -> None:
        """Commit a batch, and note what merging it did as the destination has noted it."""
        with self.news.committing(self._state.seq, batch.counts.read):
            committed = await writer.commit(batch, _checkpoint(self._state))
        self._retries += committed.retries
        if committed.merged is not None:
            noted = _checkpoint(self._state).with_merged(committed.merged)
            self._state = replace(self._state, counts=noted.counts, measures=noted.measures)

    async def select(self, writer: ISelectingWriter) -> None:
        """Let the database move the whole stream in one transaction."""
        task, begun, before = self._task, self._now(), self._state

        def checkpoint_of(rows: int) -> CheckpointUpdate:
            self._state = _moved(before, _untouched(rows), Measures(), before.position, is_last=True)
            return _checkpoint(self._state)

        selection = StreamSelection(
            task.spec.source, task.read_set.plan, task.stream, before.position, passage_of(task.target)
        )
        with self.news.batch(before.seq + 1) as span:
            with self.news.committing(before.seq + 1, 0):
                self._retries += await writer.commit_selection(selection, checkpoint_of)
            self._goes_on(_untouched(self._state.counts.read - before.counts.read), 0, begun, span)

    def _goes_on(self, counts: Counts, size_bytes: int, begun: float, span: ISpan) -> bool:
        """Note a committed batch; False when there is a reason to stop."""
        span.set({"headrace.rows.read": counts.read, "headrace.rows.used": counts.used})
        self._batches, self._bytes = self._batches + 1, self._bytes + size_bytes
        state, seconds = self._state, self._now() - begun
        self.news.tell(Progress(state.stream, state.seq, counts.read, counts.used, seconds, counts.quarantined))
        return self._stop() is None

    def report(self) -> StreamReport:
        """Say what this attempt did."""
        state = self._state
        return StreamReport(
            stream=state.stream,
            counts=state.counts,
            seq=state.seq,
            rows_read=state.counts.read - self._task.state.counts.read,
            batches=self._batches,
            bytes_read=self._bytes,
            seconds=self._now() - self._started,
            retries=self._retries,
            interrupted=not state.is_done,
            spent=self.news.spent,
            measures=state.measures,
        )


def _is_large(judged: tuple[SourceBatch, JudgedBatch]) -> bool:
    return are_large(judged[0].data)


def _seen(task: StreamTask) -> StreamState:
    """Note in the stream's measures which snapshot of the source this attempt reads."""
    label = f"{task.fence}:{task.snapshot or task.stream.name}"
    return replace(task.state, measures=task.state.measures + Measures(snapshots={label: 1}))


def _after(state: StreamState, judged: JudgedBatch, position: Position | None, *, is_last: bool) -> StreamState:
    return _moved(state, judged.counts, judged.measures, position, is_last=is_last)


def _moved(
    state: StreamState, counts: Counts, measures: Measures, position: Position | None, *, is_last: bool
) -> StreamState:
    return replace(
        state,
        seq=state.seq + 1,
        position=position,
        state="done" if is_last else "loading",
        counts=state.counts + counts,
        measures=state.measures + measures,
    )


def _untouched(rows: int) -> Counts:
    return Counts(read=rows, used=rows, produced=rows)


def _checkpoint(state: StreamState) -> CheckpointUpdate:
    return CheckpointUpdate(state.seq, state.position, state.counts, state.measures, is_last=state.is_done)


def _may_go_on(on_error: OnError, state: StreamState) -> bool:
    """Say whether as many rows may fail to convert; a share is judged once the stream is at its end."""
    judged = on_error if state.is_done else replace(on_error, max_share=None)
    return judged.allows(state.counts.failed, state.counts.read)


async def _with_last(
    items: AsyncIterator[T], is_alone: Callable[[T], bool] | None = None
) -> AsyncIterator[tuple[T, bool]]:
    """Say of each item whether it is the last one, looking one ahead; but not of one that has to be alone."""
    waiting: list[T] = []
    async for item in items:
        if waiting:
            yield waiting.pop(), False
        if is_alone is not None and is_alone(item):
            yield item, False
        else:
            waiting.append(item)
        del item
    for item in waiting:
        yield item, True
