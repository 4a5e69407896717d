"""What a stream did: the commit message of a partition, gathered into the run's report."""

from dataclasses import dataclass, field

from domain.quality.measures import Counts, Measures
from domain.runs.report import Spent, StreamPart

_NAMES = (
    "stream", "counts", "seq", "rows_read", "batches", "bytes_read", "seconds", "spent", "retries", "interrupted",
    "errors",
)  # fmt: skip


@dataclass(frozen=True)
class StreamReport:
    """What one attempt at one stream did. `counts` and `seq` are the stream's totals over all attempts; `rows_read`,
    `batches`, `bytes_read`, `seconds` and `spent` are of this one.
    """

    stream: str
    counts: Counts
    seq: int
    rows_read: int = 0
    batches: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    retries: int = 0
    interrupted: bool = False
    spent: Spent = field(default_factory=Spent)
    measures: Measures = field(default_factory=Measures)

    @property
    def part(self) -> StreamPart:
        """What the run's report says of it, with rows per second of this attempt."""
        merged = self.measures.merged
        return StreamPart(
            stream=self.stream,
            counts=self.counts,
            seq=self.seq,
            rows_read=self.rows_read,
            batches=self.batches,
            bytes_read=self.bytes_read,
            seconds=self.seconds,
            retries=self.retries,
            interrupted=self.interrupted,
            spent=self.spent,
            errors=self.measures.first_errors,
            merged=merged,
            rows_per_second=round(self.rows_read / self.seconds) if self.seconds else None,
        ).saying(*_NAMES, *(("merged",) if merged is not None else ()), "rows_per_second")
