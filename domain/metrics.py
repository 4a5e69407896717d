"""The one list of numbers that are kept: what each means, its unit, and the few labels that it may have."""

from dataclasses import dataclass
from enum import Enum

OTHER = "other"
"""What users named, in the series of all for which there is no room."""

NAMED_BY_USERS = frozenset({"organization", "pipeline", "column"})
"""Labels whose values users choose. Those of all others are words of ours, of which there are few."""

MOST_CHARACTERS = 100
"""Of a label's value."""


class MetricKind(Enum):
    """How the values of a metric go together."""

    COUNTER = "counter"
    """A sum that only grows."""
    GAUGE = "gauge"
    """How much there is of something now."""
    HISTOGRAM = "histogram"
    """Values by their size."""


_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
_QUICK_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ROWS = (10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0, 1_000_000.0)


@dataclass(frozen=True)
class Metric:
    """A number that is kept. `buckets` are the upper bounds of a histogram's."""

    name: str
    kind: MetricKind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """How Prometheus knows it: a histogram has `_bucket`, `_sum` and `_count` of it."""
        name = self.name.replace(".", "_")
        unit = "_seconds" if self.unit == "s" and not name.endswith("_seconds") else ""
        return name + unit + ("_total" if self.kind is MetricKind.COUNTER else "")


def _counter(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, MetricKind.COUNTER, unit, labels, meaning)


def _gauge(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, MetricKind.GAUGE, unit, labels, meaning)


def _histogram(name: str, unit: str, labels: tuple[str, ...], meaning: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name, MetricKind.HISTOGRAM, unit, labels, meaning, buckets)


_WORK = ("organization", "pipeline")

METRICS = (
    _counter(
        "pipeline.records.processed", "{row}", (*_WORK, "status"),
        "Rows that were committed at a destination (`succeeded`).",
    ),
    _counter(
        "pipeline.records.failed", "{row}", (*_WORK, "status"),
        "Rows of batches that were refused by a rule (`rejected`) or could not be committed (`failed`).",
    ),
    _counter(
        "pipeline.records.quarantined", "{row}", _WORK, "Rows that were put aside in committed batches for a rule."
    ),
    _histogram(
        "pipeline.batch.duration", "s", (*_WORK, "status"), "Seconds from judging a batch to its commit.", _SECONDS
    ),
    _histogram("pipeline.batch.size", "{row}", (*_WORK, "status"), "Rows read in a batch that was committed.", _ROWS),
    _counter(
        "pipeline.runs", "{run}", (*_WORK, "status"),
        "Runs that came to an end: `succeeded`, `failed` or `cancelled`.",
    ),
    _histogram("pipeline.run.duration", "s", (*_WORK, "status"), "Seconds of a run's last attempt.", _SECONDS),
    _counter("pipeline.run.retries", "{retry}", _WORK, "Attempts that failed and are tried again after a pause."),
    _counter(
        "pipeline.lease.losses", "{lease}", _WORK,
        "Attempts that were stopped because another worker has the run now, or the records were not reached in time.",
    ),
    _counter(
        "pipeline.quality.violations", "{row}", (*_WORK, "rule", "column", "verdict"), "Rows that violate a rule."
    ),
    _gauge(
        "pipeline.quality.value", "1", (*_WORK, "rule", "column"), "The value that a violated rule has last had."
    ),
    _counter(
        "pipeline.schema.violations", "{row}", (*_WORK, "violation"),
        "Rows that did not have the expected columns or types: `unconverted`, `column_discarded` or `column_added`.",
    ),
    _gauge("pipeline.queue.depth", "{run}", _WORK, "Runs that wait to be claimed; of every process the same number."),
    _gauge(
        "pipeline.queue.age", "s", _WORK,
        "Seconds since the longest waiting of them was asked for; of every process the same number.",
    ),
    _gauge(
        "pipeline.freshness", "s", _WORK,
        "Age of what the destination holds: now less `complete_as_of` of the last run that succeeded, or less its "
        "begin where the source has no clock. Processes hear of a run at different times: the least of them counts.",
    ),
    _gauge(
        "health.part", "1", ("part",),
        "How a part of `/health` was when it was last looked at: 1 healthy, 0.5 degraded, 0 unhealthy.",
    ),
    _gauge("records.connections", "{connection}", ("state",), "Connections to the records: `used`, and the `most`."),
    _histogram("process.loop.lag", "s", (), "By how many seconds a timer of the event loop was late.", _QUICK_SECONDS),
    _counter("telemetry.dropped", "{span}", ("reason",), "Spans that no collector was told of."),
    _counter(
        "http.requests", "{request}", ("route", "method", "status"),
        "Requests by the template of their route (`none` where no route is) and class of status (`2xx`).",
    ),
    _histogram("http.request.duration", "s", ("route", "method"), "Seconds to the end of an answer.", _QUICK_SECONDS),
)  # fmt: skip

METRICS_BY_NAME = {metric.name: metric for metric in METRICS}
