"""What a load tells while it goes on: streams and batches, and what was found wrong with rows and columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from application.events.announce import Announcer
from application.loads.attempt import Attempt
from application.loads.landing import Prepared
from domain.errors import PlatformError, QualityRejectedError
from domain.events import (
    BatchCommitted,
    BatchFailed,
    Origin,
    QualityIssueFound,
    SchemaViolationFound,
    StreamCompleted,
    StreamFailed,
    StreamStarted,
)
from domain.ports.data_store import Publication
from domain.ports.engine import BatchLost, News, OnProgress, Progress, StreamBegun, StreamEnded
from domain.rule_results import RuleResult


@dataclass(frozen=True)
class LoadTeller:
    """Makes events of what happens in the load of one claim."""

    announcer: Announcer
    attempt: Attempt

    def hearing(self, on_progress: OnProgress) -> Callable[[News], None]:
        """What is handed to the streams; who watches the run is told of committed batches."""

        def hear(news: News) -> None:
            match news:
                case Progress():
                    self._committed(news)
                    on_progress(news)
                case BatchLost():
                    self._lost(news)
                case StreamBegun(stream):
                    self.announcer.tell(StreamStarted(self._origin, stream))
                case StreamEnded():
                    self._ended(news)

        return hear

    def rejected(self, error: QualityRejectedError) -> None:
        """Tell of the rules for which nothing was committed, or published."""
        self._issues(error.results)

    def published(self, publication: Publication, landing: Prepared) -> None:
        """Tell what was found wrong with rows and columns that were published all the same."""
        self._issues(publication.judgement.results)
        counts = publication.counts
        found = [("unconverted", column, rows) for column, rows in publication.measures.unconverted.items()]
        found += [("column_discarded", column, counts.read) for column in landing.target.discarded]
        found += [("column_added", column, counts.used) for column in landing.added]
        for violation, column, rows in found:
            if rows:
                self.announcer.tell(SchemaViolationFound(self._origin, violation, column, rows))

    def _issues(self, results: Sequence[RuleResult]) -> None:
        spec = self.attempt.spec
        columns = {rule.label: rule.column or ", ".join(rule.columns) or None for rule in spec.quality}
        source = str(spec.source.table) if spec.source.table is not None else spec.source.path
        for result in results:
            if result.violations:
                self.announcer.tell(
                    QualityIssueFound(
                        self._origin,
                        rule=result.rule,
                        verdict=result.verdict,
                        value=result.value,
                        threshold=result.threshold,
                        affected_rows=result.violations,
                        column=columns.get(result.rule),
                        source_connection=spec.source.connection,
                        source_table=source,
                    )
                )

    def _committed(self, batch: Progress) -> None:
        self.announcer.tell(
            BatchCommitted(
                self._origin,
                batch_id=self._batch_id(batch.stream, batch.seq),
                rows_read=batch.rows_read,
                record_count=batch.rows_used,
                duration_seconds=round(batch.seconds, 4),
                records_per_second=_rate(batch.rows_read, batch.seconds),
                quarantined_count=batch.rows_quarantined,
            )
        )

    def _lost(self, batch: BatchLost) -> None:
        if isinstance(batch.error, QualityRejectedError):
            self.rejected(batch.error)
        batch_id = self._batch_id(batch.stream, batch.seq)
        self.announcer.tell(BatchFailed(self._origin, batch_id, batch.rows, *_error(batch.error)))

    def _ended(self, stream: StreamEnded) -> None:
        if stream.error is not None:
            self.announcer.tell(StreamFailed(self._origin, stream.stream, *_error(stream.error)))
        if (report := stream.report) is not None:
            self.announcer.tell(
                StreamCompleted(
                    self._origin,
                    stream=stream.stream,
                    status="interrupted" if report.interrupted else "succeeded",
                    rows_read=report.rows_read,
                    batches=report.batches,
                    duration_seconds=round(report.seconds, 4),
                    records_per_second=_rate(report.rows_read, report.seconds),
                )
            )

    @property
    def _origin(self) -> Origin:
        return self.attempt.claim.origin

    def _batch_id(self, stream: str, seq: int) -> str:
        return f"{self.attempt.claim.run.id}/{stream}/{seq}"


def _rate(rows: int, seconds: float) -> float:
    return round(rows / seconds, 1) if seconds else 0.0


def _error(error: BaseException) -> tuple[str, str]:
    """The type of an error, and its sentence; of what is no error of ours nothing is told but its class."""
    if isinstance(error, PlatformError):
        return error.code, error.message
    return type(error).__name__, "It was interrupted." if not isinstance(error, Exception) else "Unexpected."
