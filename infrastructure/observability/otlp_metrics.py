"""The numbers of this process over OTLP: instruments of the SDK, read and sent by a thread that nobody waits for."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from domain.metrics import METRICS, Metric, MetricKind
from infrastructure.log import log
from infrastructure.observability.exporting import SCOPE, Watch, built
from infrastructure.observability.options import OtelOptions

Record = Callable[[float, Mapping[str, str]], None]


class _WatchedExporter(MetricExporter):
    """Says once that the collector does not take them, and once that it does. Nothing is lost meanwhile, as sums are
    sent as they are and not as they have grown.
    """

    def __init__(self, inner: MetricExporter, endpoint: str) -> None:
        super().__init__(inner._preferred_temporality, inner._preferred_aggregation)
        self.inner = inner
        self.watch = Watch()
        self.is_quiet = False
        self._endpoint = endpoint

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: Any) -> MetricExportResult:
        why = self.watch.send(lambda: self.inner.export(metrics_data, timeout_millis, **more))
        is_in_trouble = why is not None
        if is_in_trouble != self.watch.is_in_trouble and not self.is_quiet:
            if is_in_trouble:
                sentence = f"Metrics are not sent: {why}."
                log.warning("telemetry.metrics_unreachable", endpoint=self._endpoint, message=sentence)
            else:
                log.info("telemetry.metrics_exported", endpoint=self._endpoint)
        self.watch.is_in_trouble = is_in_trouble
        return MetricExportResult.FAILURE if is_in_trouble else MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self.inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        self.inner.shutdown(timeout_millis)


class OtlpNumbers:
    """Everything that is declared, as instruments of a provider of our own."""

    def __init__(self, options: OtelOptions, resource: Resource) -> None:
        self._exporter = _WatchedExporter(built(options, "metrics"), options.shown_endpoint)
        reader = PeriodicExportingMetricReader(
            self._exporter,
            export_interval_millis=options.metrics_interval_seconds * 1000,
            export_timeout_millis=options.timeout_seconds * 1000,
        )
        self._provider = MeterProvider(
            [reader], resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        self._records = {metric.name: self._record_of(metric) for metric in METRICS}

    @property
    def watch(self) -> Watch:
        """Whether the collector takes them."""
        return self._exporter.watch

    def say(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Tell the instrument of a metric."""
        self._records[name](value, labels)

    def force_flush(self) -> None:
        """Send them once more."""
        with suppress(Exception):  # What failed is known from the watch.
            self._provider.force_flush()

    def shutdown(self) -> None:
        """Send them once more, and end; of trouble nothing is said any more."""
        self._exporter.is_quiet = True
        self._provider.shutdown()

    def abandon(self) -> None:
        """Close the connection that something is in the middle of."""
        self._exporter.shutdown()

    def _record_of(self, metric: Metric) -> Record:
        meter, about = self._provider.get_meter(SCOPE), (metric.name, metric.unit, metric.meaning)
        match metric.kind:
            case MetricKind.COUNTER:
                return meter.create_counter(*about).add
            case MetricKind.GAUGE:
                return meter.create_gauge(*about).set
            case MetricKind.HISTOGRAM:
                buckets = list(metric.buckets)
                return meter.create_histogram(*about, explicit_bucket_boundaries_advisory=buckets).record
