"""How spans leave the process: from a bounded queue, scrubbed, and with every one that is lost counted."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any

import requests
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode

from domain.errors import InvalidInputError, MissingExtraError
from domain.plain_text import in_one_line
from infrastructure.clock import monotonic
from infrastructure.log import log
from infrastructure.observability.options import OtelOptions
from infrastructure.observability.scrubbing import scrubbed

_EXPORTERS = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
}

SCOPE = "headrace"
"""What our own spans are of; all others are made by instrumentations of libraries."""

_MOST_OF_AN_ANSWER = 65_536


class CollectorSession(requests.Session):
    """Sends what is secret to no other address, and reads no more of an answer than one has."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        answer = super().send(request, **{**options, "stream": True, "allow_redirects": False})
        answer._content = answer.raw.read(_MOST_OF_AN_ANSWER, decode_content=False)
        answer.close()
        if answer.is_redirect:  # Which the exporter would take for an answer that spans were taken.
            raise requests.TooManyRedirects("The collector's redirect is not followed.")
        return answer


def exporter_of(options: OtelOptions) -> SpanExporter:
    """What sends spans; raises as `built`."""
    exporter: SpanExporter = built(options, "traces")
    return exporter


def built(options: OtelOptions, signal: str) -> Any:
    """The library's exporter of a signal, `traces` or `metrics`, over the protocol of the settings; it dials once there
    is something to send.

    Raises:
        MissingExtraError: gRPC is not installed.
        InvalidInputError: the library refuses a setting that it reads itself (`telemetry.settings`).
    """
    try:
        return _built(options, signal)
    except MissingExtraError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {in_one_line(scrubbed(str(error)))}"
        raise InvalidInputError(
            f"OpenTelemetry refuses one of the settings OTEL_EXPORTER_OTLP_*: {said}.", code="telemetry.settings"
        ) from error


def _built(options: OtelOptions, signal: str) -> Any:
    module, name = _EXPORTERS[signal]
    headers, seconds = dict(options.headers), options.timeout_seconds
    if options.protocol == "grpc":
        try:
            grpc = import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}")
        except ModuleNotFoundError as error:
            raise MissingExtraError("otlp-grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc") from error
        lower = {name.lower(): value for name, value in headers.items()}
        return getattr(grpc, name)(endpoint=options.grpc_endpoint, headers=lower, timeout=seconds)
    http = import_module(f"opentelemetry.exporter.otlp.proto.http.{module}")
    endpoint, session = options.http_endpoint(signal), CollectorSession()
    return getattr(http, name)(endpoint=endpoint, headers=headers, timeout=seconds, session=session)


class Watch:
    """Whether a collector takes what it is sent."""

    def __init__(self) -> None:
        self.is_in_trouble = False
        self._begun: float | None = None

    @property
    def silent_seconds(self) -> float:
        """For how long it has not answered to what it is being sent; 0 if that is nothing."""
        begun = self._begun
        return 0.0 if begun is None else monotonic() - begun

    def send(self, export: Callable[[], Enum]) -> str | None:
        """Send something, and say why it was not taken; an answer that it was is named SUCCESS."""
        self._begun = monotonic()
        try:
            why = None if export().name == "SUCCESS" else "it does not take them"
        except Exception as error:  # noqa: BLE001 - whatever a collector answers, it is its trouble and not ours
            why = type(error).__name__
        self._begun = None
        return why


@dataclass(eq=False)
class WatchedExporter(SpanExporter):
    """Scrubs what is sent, counts what was not taken, and says once that it is in trouble and once that it works."""

    inner: SpanExporter
    endpoint: str
    taken: int = 0
    failed: int = 0
    watch: Watch = field(default_factory=Watch)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        why = self.watch.send(lambda: self.inner.export([_scrubbed_span(span) for span in spans]))
        if why is None:
            if self.watch.is_in_trouble:
                log.info("telemetry.exported", endpoint=self.endpoint, dropped=self.failed)
        else:
            self.failed += len(spans)
            if not self.watch.is_in_trouble:
                log.warning("telemetry.unreachable", endpoint=self.endpoint, message=f"Spans are dropped: {why}.")
        self.watch.is_in_trouble = why is not None
        return SpanExportResult.SUCCESS if why is None else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self.inner.force_flush(timeout_millis)


@dataclass(eq=False)
class BoundedProcessor(SpanProcessor):
    """Hands ended spans to a batch processor while its queue has room, and counts them where it has none: dropping is
    ours to do, as the queue itself would say so in a line for each.
    """

    exporter: WatchedExporter
    options: OtelOptions
    dropped: int = 0
    _given: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._inner = BatchSpanProcessor(
            self.exporter,
            max_queue_size=self.options.queue_size,
            schedule_delay_millis=self.options.delay_seconds * 1000,
            max_export_batch_size=min(self.options.batch_size, self.options.queue_size),
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            if self._given - self.exporter.taken >= self.options.queue_size:
                self.dropped += 1
                return
            self._given += 1
        self._inner.on_end(span)

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        return self._inner.force_flush(timeout_millis)

    def drops(self) -> Mapping[str, int]:
        """What was lost, by the reason."""
        return {"queue_full": self.dropped, "export_failed": self.exporter.failed}

    @property
    def waiting(self) -> int:
        """How many spans nobody was told of yet."""
        return self._given - self.exporter.taken


def _scrubbed_span(span: ReadableSpan) -> ReadableSpan:
    """A span of a library that failed, without what its driver said: that holds values and addresses. Ours are
    scrubbed when they are made.
    """
    scope = span.instrumentation_scope
    if (scope is not None and scope.name == SCOPE) or span.status.status_code is not StatusCode.ERROR:
        return span
    kinds = [str((event.attributes or {}).get("exception.type", "")) for event in span.events]
    events = [
        Event("exception", {"exception.type": kind}, event.timestamp)
        for event, kind in zip(span.events, kinds, strict=True)
        if kind
    ]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(StatusCode.ERROR, next(iter(kinds), "")),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=scope,
    )
