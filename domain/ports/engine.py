"""The port to where streams run."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from domain.loads.checkpoint import StreamState
from domain.loads.read_set import ReadSet, Stream
from domain.loads.report import StreamReport
from domain.loads.way import DECODED, Route
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import Target
from domain.ports.transformer import TransformPlan
from domain.runs.lane import Lane, LaneOwner
from domain.stores.connection import ConnectionSpec


@dataclass(frozen=True)
class StreamTask:
    """Everything a stream needs to run anywhere: frozen, picklable, secrets only as references.

    `token` is what the claim's take-over put beside its fence. `snapshot` names a snapshot of the source that the
    streams of one claim share; `route` is how rows travel.
    """

    spec: PipelineSpec
    lane: Lane
    source: ConnectionSpec
    destination: ConnectionSpec
    target: Target
    transform: TransformPlan
    read_set: ReadSet
    stream: Stream
    state: StreamState
    fence: int
    token: str
    snapshot: str | None = None
    route: Route = DECODED

    @property
    def owner(self) -> LaneOwner:
        """For whom it reads."""
        return LaneOwner(self.lane, self.fence)


@dataclass(frozen=True)
class Progress:
    """What one committed batch added, for progress displays and events."""

    stream: str
    seq: int
    rows_read: int
    rows_used: int
    seconds: float
    rows_quarantined: int = 0


@dataclass(frozen=True)
class BatchLost:
    """A batch was refused, or could not be committed."""

    stream: str
    seq: int
    rows: int
    error: Exception


@dataclass(frozen=True)
class StreamBegun:
    """A stream begins, where an attempt before it has left it."""

    stream: str


@dataclass(frozen=True)
class StreamEnded:
    """A stream has ended by itself, or by an error."""

    stream: str
    report: StreamReport | None = None
    error: BaseException | None = None


Stop = Callable[[], str | None]
"""Asked after every batch; a reason to stop, or None to go on."""

OnProgress = Callable[[Progress], None]

News = Progress | BatchLost | StreamBegun | StreamEnded
OnNews = Callable[[News], None]

RunStream = Callable[[StreamTask, Stop, OnNews], Awaitable[StreamReport]]


class IEngine(ABC):
    """Runs independent streams.

    1. Every task is run once and its report returned, in the order of the tasks.
    2. When one stream fails the others are asked to stop, and the first failure is raised after all have ended.
    3. A task survives pickling: nothing but its fields reaches the stream.
    4. At most `parallelism` streams run at a time.
    """

    @abstractmethod
    async def run(
        self, tasks: Sequence[StreamTask], *, parallelism: int, stop: Stop, on_news: OnNews
    ) -> list[StreamReport]:
        """Run the streams of one read set."""
