"""What one stream says of its batches while it goes on: their spans, and which of them are lost."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from domain.errors import FencedError
from domain.ports.engine import BatchLost, OnNews
from domain.ports.telemetry import ISpan, ITelemetry
from domain.runs.report import Spent


@dataclass
class StreamNews:
    """Tells of the batches of a stream; `judged` is the last one that was judged, which runs ahead of commits."""

    stream: str
    judged: int
    tell: OnNews
    telemetry: ITelemetry
    now: Callable[[], float]
    spent: Spent = field(default_factory=Spent)

    def batch(self, seq: int) -> AbstractContextManager[ISpan]:
        """A batch from when it was judged until it is committed."""
        return self.telemetry.span("batch", attributes={"headrace.stream": self.stream, "headrace.batch.seq": seq})

    @contextmanager
    def judging(self, rows: int) -> Iterator[None]:
        """Tell of the next batch that it is lost, if judging it fails: those before may not be committed yet."""
        self.judged += 1
        begun = self.now()
        with self.losing(self.judged, rows), self.telemetry.span("judge"):
            yield
        self.spent += Spent(judge=self.now() - begun)

    @contextmanager
    def committing(self, seq: int, rows: int) -> Iterator[None]:
        """Tell of a batch that it is lost, if it cannot be committed."""
        begun = self.now()
        with self.losing(seq, rows), self.telemetry.span("commit"):
            yield
        self.spent += Spent(write=self.now() - begun)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait for the source."""
        begun = self.now()
        try:
            yield
        finally:
            self.spent += Spent(read=self.now() - begun)

    @contextmanager
    def losing(self, seq: int, rows: int) -> Iterator[None]:
        """Tell of a batch that it is lost, if the block fails."""
        try:
            yield
        except FencedError:
            raise  # Whoever has the lane now has the batch too.
        except Exception as error:
            self.tell(BatchLost(self.stream, seq, rows, error))
            raise
