"""Telemetry that is kept, to be looked at."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from domain.errors import PlatformError
from domain.ports.telemetry import Attribute, ISpan, SpanKind
from infrastructure.observability.telemetry import ContextTelemetry

Number = tuple[str, float, Mapping[str, str]]


@dataclass
class KeptSpan(ISpan):
    name: str
    trace: str | None
    status: tuple[str, str] | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self.attributes |= attributes

    def rename(self, name: str) -> None:
        self.name = name

    def fail(self, code: str, message: str) -> None:
        self.status = (code, message)


@dataclass(eq=False)
class KeptTelemetry(ContextTelemetry):
    """Its traces are those of a real process."""

    spans: list[KeptSpan] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @contextmanager
    def span(
        self,
        name: str,
        *,
        trace: str | None = None,
        links: Sequence[str] = (),
        attributes: Mapping[str, Attribute] | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        is_trusted: bool = True,
    ) -> Iterator[ISpan]:
        with super().span(name, trace=trace):
            span = KeptSpan(name, self.current_trace(), attributes=dict(attributes or {}))
            self.spans.append(span)
            try:
                yield span
            except BaseException as error:
                code = error.code if isinstance(error, PlatformError) else type(error).__name__
                span.fail(code, str(error))
                raise

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        self.numbers.append((name, amount, labels))

    observe = count

    def gauge(self, name: str, value: float | None, labels: Mapping[str, str]) -> None:
        self.numbers.append((name, -1.0 if value is None else value, labels))
