"""ITelemetry on the SDK of OpenTelemetry: spans and numbers over OTLP, sent by threads that nobody waits for."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from domain.errors import PlatformError
from domain.plain_text import in_one_line
from domain.ports.telemetry import Attribute, ISpan, SpanKind
from infrastructure.log import bound, log
from infrastructure.observability.exporting import SCOPE, BoundedProcessor, Watch, WatchedExporter, exporter_of
from infrastructure.observability.libraries import instrument
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.options import OtelOptions
from infrastructure.observability.otlp_metrics import OtlpNumbers
from infrastructure.observability.sampling import UNTRUSTED, OwnSampler
from infrastructure.observability.scrubbing import scrubbed
from infrastructure.observability.telemetry import ContextTelemetry
from infrastructure.observability.traceparent import TraceParent, trace_parent

_KINDS = {kind: otel.SpanKind[kind.name] for kind in SpanKind}
_FLUSH_SLOW_SECONDS = 0.2
"""Of a collector that was in trouble before."""
_SLOW_SECONDS = 2.0
_SILENT_SECONDS = 0.5
"""After which nothing more is expected of a collector when the process ends."""
_ABANDON_SECONDS = 0.1
_LONGEST = 1000
_RECORDED = "_headrace_recorded"


class _Span(ISpan):
    """A span of the SDK."""

    def __init__(self, span: otel.Span) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        if self._span.is_recording():
            self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, code: str, message: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("error.type", code)
            self._span.set_status(otel.Status(otel.StatusCode.ERROR, message))

    def raised(self, error: BaseException) -> None:
        """Record what left the block."""
        if not self._span.is_recording():
            return
        kind = type(error).__name__
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.fail("cancelled", "It was cancelled.")
            return
        code = error.code if isinstance(error, PlatformError) else kind
        message = _said_by(error)
        self.fail(code, message)
        if not getattr(error, _RECORDED, False):  # The spans around have its status, and the innermost one itself.
            self._span.add_event("exception", {"exception.type": kind, "exception.message": message})
            with contextlib.suppress(AttributeError):
                setattr(error, _RECORDED, True)


_LEFT_OUT = _Span(otel.INVALID_SPAN)


class OtelTelemetry(ContextTelemetry):
    """Exports spans and numbers from `open` to `close`; before and after it is as one that tells nobody."""

    def __init__(self, options: OtelOptions, numbers: Numbers | None = None) -> None:
        super().__init__(numbers)
        self._options = options
        self._tracer: otel.Tracer | None = None
        self._processor: BoundedProcessor | None = None
        self._provider: TracerProvider | None = None
        self._meters: OtlpNumbers | None = None
        self._end_instrumenting: Callable[[], None] = lambda: None
        self._is_ending = False

    async def open(self) -> None:
        options = self._options
        # Their lines would be one for every batch that is not taken, and hold what a collector answers.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = Resource.create(dict(options.resource))
        if "metrics" in options.signals:
            self._meters = OtlpNumbers(options, resource)
        if "traces" in options.signals:
            self._open_tracer(options, resource)

    def _open_tracer(self, options: OtelOptions, resource: Resource) -> None:
        exporter = WatchedExporter(exporter_of(options), options.shown_endpoint)
        self._processor = BoundedProcessor(exporter, options)
        self._provider = TracerProvider(
            sampler=OwnSampler(options.rate, by_parent=options.by_parent),
            resource=resource,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer(SCOPE)
        self._end_instrumenting = instrument(options.instrumented, self._provider)

    def begin_close(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        for part in (self._meters, self._processor):
            if part is not None:
                threading.Thread(target=part.force_flush, name="telemetry-flush", daemon=True).start()

    async def close(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close_meters())
            tasks.create_task(self._close_tracer())

    async def _close_meters(self) -> None:
        meters, self._meters = self._meters, None
        if meters is None:
            return
        of_spans = () if self._processor is None else (self._processor.exporter.watch,)
        seconds = self._flush_seconds(meters.watch, *of_spans)
        if not await _done_beside(meters.shutdown, seconds):
            await _done_beside(meters.abandon, _ABANDON_SECONDS)

    async def _close_tracer(self) -> None:
        provider, processor = self._provider, self._processor
        if provider is None or processor is None:
            return
        self._provider, self._tracer = None, None
        self._end_instrumenting()
        watch = processor.exporter.watch
        if not await _done_beside(provider.shutdown, self._flush_seconds(watch)):
            watch.is_in_trouble = True  # As of which nothing more is to be said.
            sentence = "The collector did not take them before the process ended."
            log.info("telemetry.left", dropped=processor.waiting, message=sentence, **processor.drops())
            # Its connection is closed, so that no thread is in the middle of a call when the process ends.
            await _done_beside(processor.exporter.shutdown, _ABANDON_SECONDS)

    def _flush_seconds(self, *watches: Watch) -> float:
        """How long the end is to be waited for, by what the collector did until now."""
        seconds, silent = self._options.flush_seconds, max(watch.silent_seconds for watch in watches)
        if self._is_ending and silent > _SILENT_SECONDS:
            return 0.0  # It had its time while all else ended.
        is_slow = silent > _SLOW_SECONDS or any(watch.is_in_trouble for watch in watches)
        return min(seconds, _FLUSH_SLOW_SECONDS) if is_slow else seconds

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
        if self._tracer is None:
            with super().span(name, trace=trace) as unmeasured:
                yield unmeasured
            return
        if trace is None and _is_left_out(otel.get_current_span().get_span_context()):
            yield _LEFT_OUT  # As all of its trace; what it would be is passed on as it came.
            return
        parent = _context_of(trace, is_trusted=is_trusted)
        linked = [otel.Link(found) for found in map(_span_context, links) if found is not None]
        span = self._tracer.start_span(name, parent, _KINDS[kind], attributes, linked)
        ids = span.get_span_context()
        token = otel_context.attach(otel.set_span_in_context(span))
        measured = _Span(span)
        try:
            with bound(trace_id=f"{ids.trace_id:032x}", span_id=f"{ids.span_id:016x}"):
                yield measured
        except BaseException as error:
            measured.raised(error)
            raise
        finally:
            otel_context.detach(token)
            span.end()

    def current_trace(self) -> str | None:
        if self._tracer is None:
            return super().current_trace()
        ids = otel.get_current_span().get_span_context()
        if not ids.is_valid:
            return None
        return str(TraceParent(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", ids.trace_flags.sampled))

    @property
    def is_exporting(self) -> bool:
        return True

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        self._say(name, amount, self._numbers.count(name, amount, labels))

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._say(name, value, self._numbers.observe(name, value, labels))

    def gauge(self, name: str, value: float | None, labels: Mapping[str, str]) -> None:
        said = self._numbers.gauge(name, value, labels)
        if value is not None:
            self._say(name, value, said)

    def _say(self, name: str, value: float, labels: Mapping[str, str] | None) -> None:
        """Tell the collector the same, in series that are bounded as ours are."""
        if labels is not None and self._meters is not None:
            self._meters.say(name, value, labels)

    def drops(self) -> Mapping[str, int]:
        return self._processor.drops() if self._processor is not None else {}


def _is_left_out(current: otel.SpanContext) -> bool:
    return current.is_valid and not current.trace_flags.sampled


def _said_by(error: BaseException) -> str:
    try:
        return in_one_line(scrubbed(str(error)))[:_LONGEST]
    except Exception:  # noqa: BLE001 - an error that cannot be written is told by its type
        return ""


def _span_context(text: str | None) -> otel.SpanContext | None:
    found = trace_parent(text)
    if found is None:
        return None
    flags = otel.TraceFlags(otel.TraceFlags.SAMPLED if found.is_sampled else otel.TraceFlags.DEFAULT)
    return otel.SpanContext(int(found.trace_id, 16), int(found.span_id, 16), is_remote=True, trace_flags=flags)


def _context_of(trace: str | None, *, is_trusted: bool) -> otel_context.Context | None:
    """The context of the parent that was given; None means the current one."""
    given = _span_context(trace)
    if given is None:
        return None
    parent = otel.set_span_in_context(otel.NonRecordingSpan(given), otel_context.Context())
    return parent if is_trusted else otel_context.set_value(UNTRUSTED, True, parent)


async def _done_beside(act: Callable[[], None], seconds: float) -> bool:
    """Act in a thread, and say whether that was done in time. It is none of the loop's pool, as those are waited for at
    the end of a process.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def acted() -> None:
        act()
        with contextlib.suppress(RuntimeError):  # The loop may be over by then.
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=acted, name="telemetry-close", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        return False
    return True
