"""ITelemetry of a process that tells nobody by itself: traces in log lines and on to other processes, and numbers that
are kept until somebody asks.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from domain.ports.telemetry import Attribute, ISpan, ITelemetry, SpanKind
from infrastructure.log import bound
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.traceparent import TraceParent, trace_parent


class _Span(ISpan):
    """Nobody is told of it."""

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def fail(self, code: str, message: str) -> None:
        pass


class ContextTelemetry(ITelemetry):
    """Carries the W3C trace context and puts its ids into log lines."""

    def __init__(self, numbers: Numbers | None = None) -> None:
        self._numbers = numbers if numbers is not None else Numbers()
        self._trace: ContextVar[str | None] = ContextVar("trace", default=None)

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
        given = trace_parent(trace) or trace_parent(self._trace.get())
        trace_id = given.trace_id if given else os.urandom(16).hex()
        span_id = os.urandom(8).hex()
        token = self._trace.set(str(TraceParent(trace_id, span_id, is_sampled=True)))
        try:
            with bound(trace_id=trace_id, span_id=span_id):
                yield _Span()
        finally:
            self._trace.reset(token)

    def current_trace(self) -> str | None:
        return self._trace.get()

    @property
    def is_exporting(self) -> bool:
        return False

    async def open(self) -> None:
        pass

    def begin_close(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def drops(self) -> Mapping[str, int]:
        return {}

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        self._numbers.count(name, amount, labels)

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._numbers.observe(name, value, labels)

    def gauge(self, name: str, value: float | None, labels: Mapping[str, str]) -> None:
        self._numbers.gauge(name, value, labels)
