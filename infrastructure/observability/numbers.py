"""The numbers of this process: every series there is of the metrics that are declared, and never more than so many."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from domain.metrics import METRICS, METRICS_BY_NAME, MOST_CHARACTERS, NAMED_BY_USERS, OTHER, Metric, MetricKind

MOST_SERIES = 1000
"""Of one metric; what users named beyond that is counted as `other`. Of a histogram, whose series are each a dozen
numbers, it is a quarter of that.
"""

Series = tuple[str, ...]
"""The values of a metric's labels, in their order."""


@dataclass
class Distribution:
    """How many values are no larger than each bound, and those that are larger than all."""

    counts: list[int]
    total: float = 0.0


@dataclass(eq=False)
class Numbers:
    """Keeps them for whoever asks; threads may count at once. Whatever is not declared is passed over, as nothing that
    counts may stop what it counts.
    """

    most_series: int = MOST_SERIES
    _values: dict[str, dict[Series, float]] = field(default_factory=dict)
    _distributions: dict[str, dict[Series, Distribution]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def count(self, name: str, amount: float, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Add to a sum; the labels that it was counted under, or None where it is none of ours."""
        metric = _declared(name, MetricKind.COUNTER, amount)
        if metric is None or amount < 0:
            return None
        with self._lock:
            series = self._series(metric, labels, self._values.setdefault(name, {}))
            self._values[name][series] = self._values[name].get(series, 0.0) + amount
        return dict(zip(metric.labels, series, strict=True))

    def gauge(self, name: str, value: float | None, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Put a value in the place of the one before; with None there is none any more."""
        metric = _declared(name, MetricKind.GAUGE, value or 0.0)
        if metric is None:
            return None
        if value is None:
            with self._lock:
                known = self._values.get(name, {})
                known.pop(self._series(metric, labels, known), None)
            return None
        with self._lock:
            series = self._series(metric, labels, self._values.setdefault(name, {}))
            self._values[name][series] = float(value)
        return dict(zip(metric.labels, series, strict=True))

    def observe(self, name: str, value: float, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """Put a value into the first bucket that has room for its size."""
        metric = _declared(name, MetricKind.HISTOGRAM, value)
        if metric is None:
            return None
        place = next((i for i, bound in enumerate(metric.buckets) if value <= bound), len(metric.buckets))
        with self._lock:
            known = self._distributions.setdefault(name, {})
            series = self._series(metric, labels, known)
            found = known.setdefault(series, Distribution([0] * (len(metric.buckets) + 1)))
            found.counts[place] += 1
            found.total += value
        return dict(zip(metric.labels, series, strict=True))

    def values(self) -> Iterator[tuple[Metric, Mapping[Series, float]]]:
        """The sums and gauges that there are, as they are now."""
        for metric in METRICS:
            with self._lock:
                found = dict(self._values.get(metric.name, {}))
            if found:
                yield metric, found

    def distributions(self) -> Iterator[tuple[Metric, Mapping[Series, Distribution]]]:
        """The histograms that there are, as they are now."""
        for metric in METRICS:
            with self._lock:
                kept = self._distributions.get(metric.name, {})
                found = {series: Distribution(list(each.counts), each.total) for series, each in kept.items()}
            if found:
                yield metric, found

    def _series(self, metric: Metric, labels: Mapping[str, str], known: Mapping[Series, object]) -> Series:
        series = tuple(str(labels.get(label, ""))[:MOST_CHARACTERS] for label in metric.labels)
        most = self.most_series // (4 if metric.kind is MetricKind.HISTOGRAM else 1)
        if series in known or len(known) < most:
            return series
        return tuple(
            OTHER if label in NAMED_BY_USERS else value for label, value in zip(metric.labels, series, strict=True)
        )


def _declared(name: str, kind: MetricKind, value: float) -> Metric | None:
    metric = METRICS_BY_NAME.get(name)
    return metric if metric is not None and metric.kind is kind and math.isfinite(value) else None
