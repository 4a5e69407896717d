"""Clock, identifiers and telemetry of a real process."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import uuid_utils

from domain.ports.runtime import IClock, IIdentifiers, ITelemetry


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


class NoTelemetry(ITelemetry):
    """Measures nothing, until OTEL_ENABLED has something behind it."""

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        yield
