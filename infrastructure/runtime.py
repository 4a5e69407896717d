"""Clock, identifiers and telemetry of a real process."""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

import structlog
import uuid_utils

from domain.ports.runtime import IClock, IIdentifiers, ITelemetry

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class SystemClock(IClock):
    """The host's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class RandomIdentifiers(IIdentifiers):
    """UUIDv7 and the system's random source."""

    def new_id(self) -> str:
        return str(uuid_utils.uuid7())

    def new_secret(self) -> str:
        return secrets.token_urlsafe(32)


class ContextTelemetry(ITelemetry):
    """Carries the W3C trace context and puts its ids into log lines; exports nothing until OTEL_ENABLED acts."""

    def __init__(self) -> None:
        self._trace: ContextVar[str | None] = ContextVar("trace", default=None)

    @contextmanager
    def span(self, name: str, *, trace: str | None = None) -> Iterator[None]:
        given = trace if trace is not None and TRACEPARENT.fullmatch(trace) else self._trace.get()
        trace_id = given.split("-")[1] if given else os.urandom(16).hex()
        span_id = os.urandom(8).hex()
        token = self._trace.set(f"00-{trace_id}-{span_id}-01")
        try:
            with structlog.contextvars.bound_contextvars(trace_id=trace_id, span_id=span_id):
                yield
        finally:
            self._trace.reset(token)

    def current_trace(self) -> str | None:
        return self._trace.get()
