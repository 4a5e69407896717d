"""The port to what is measured: spans of work, and numbers of what happens."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum

Attribute = str | bool | int | float
"""What is said of a span: never a secret, a value of a row, or the text of a query of a user."""


class SpanKind(Enum):
    """What a span is to whoever draws the trace."""

    INTERNAL = "internal"
    SERVER = "server"
    """Somebody waits for its answer."""
    PRODUCER = "producer"
    """It leaves something to whoever takes it."""
    CONSUMER = "consumer"
    """It takes up what was left."""


class ISpan(ABC):
    """A piece of work that is being measured."""

    @abstractmethod
    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Say more of it."""

    @abstractmethod
    def rename(self, name: str) -> None:
        """Name it once it is known what it is: a request after its route was found."""

    @abstractmethod
    def fail(self, code: str, message: str) -> None:
        """Give it the status of an error, where none leaves the block."""


class ITelemetry(ABC):
    """Traces of use cases, and series of numbers. A trace travels as the text of a W3C `traceparent`.

    1. A span belongs to the trace given, else to the current one, else to a new one; within it that is the current one.
    2. An error that leaves the block of a span is its status and is recorded once, and goes on. Of errors of ours it
       says code and message, of others their type and a text without secrets.
    3. A number belongs to the series of its name and labels, as `domain.metrics` declares them; labels are names, of
       which there are few, never ids. What is not declared is passed over.
    4. What measures never stops what is measured: nothing is raised and nothing waited for.
    5. Whether a trace is kept is decided where it begins, and holds in all of it. What a stranger's `traceparent` says
       of that is passed over: `is_trusted` is false.
    6. Nothing is sent before `open`, nor after `close`, which waits a bounded time for what is left, and a shorter one
       if `begin_close` was told before and whoever takes it has not answered since. What was not sent is counted by
       its reason in `drops`.
    """

    @abstractmethod
    def span(
        self,
        name: str,
        *,
        trace: str | None = None,
        links: Sequence[str] = (),
        attributes: Mapping[str, Attribute] | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        is_trusted: bool = True,
    ) -> AbstractContextManager[ISpan]:
        """Measure a block under a name; `links` are traces that it has to do with and does not belong to."""

    @abstractmethod
    def current_trace(self) -> str | None:
        """Return the trace that the caller is in, to be handed to another process."""

    @property
    @abstractmethod
    def is_exporting(self) -> bool:
        """Whether anybody is told of what is measured."""

    @abstractmethod
    async def open(self) -> None:
        """Begin to send."""

    @abstractmethod
    def begin_close(self) -> None:
        """Begin to hand over what there is, while all else ends; nothing is waited for."""

    @abstractmethod
    async def close(self) -> None:
        """Hand over what is left, and be quiet from then on."""

    @abstractmethod
    def drops(self) -> Mapping[str, int]:
        """How many spans nobody was told of, by the reason."""

    @abstractmethod
    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a sum that only grows."""

    @abstractmethod
    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Put one value into a distribution."""

    @abstractmethod
    def gauge(self, name: str, value: float | None, labels: Mapping[str, str]) -> None:
        """Say how much there is of something now; None where there is no such thing any more."""


class IMetricsPage(ABC):
    """The numbers of this process, for whoever watches it.

    1. It shows every series that was counted, observed or gauged, under its declared name, and no others.
    2. There are no more series of a metric than is bounded: what users named beyond that is shown as `other`.
    """

    @abstractmethod
    async def text(self) -> bytes:
        """Write all of them in the text of Prometheus; nobody is asked for it."""
