"""IMetricsPage in the text of Prometheus, written by its client, which is imported once somebody asks."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from domain.metrics import Metric, MetricKind
from domain.ports.telemetry import IMetricsPage
from infrastructure.observability.numbers import Distribution, Numbers

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client import Metric as Family


class PrometheusPage(IMetricsPage):
    """Written in a thread of its own, one at a time: the loop has other things to do, and the threads that all share
    may wait for a disk. Whoever asks meanwhile has the same page: a large one takes its time, and many of them memory.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._writing: asyncio.Future[bytes] | None = None

    async def text(self) -> bytes:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._written)
        return await asyncio.shield(self._writing)

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "metrics")

    def _written(self) -> bytes:
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    @cached_property
    def _registry(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(self._numbers))
        return registry


class _Collected:
    """What the registry asks for families: a collector of its library, by its shape."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> "Iterator[Family]":
        """Give them."""
        return _families(self._numbers)


def _families(numbers: Numbers) -> "Iterator[Family]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for metric, values in numbers.values():
        kind = CounterMetricFamily if metric.kind is MetricKind.COUNTER else GaugeMetricFamily
        family = kind(metric.prometheus_name, metric.meaning, labels=metric.labels)
        for series, value in values.items():
            family.add_metric(series, value)
        yield family
    for metric, found in numbers.distributions():
        histogram = HistogramMetricFamily(metric.prometheus_name, metric.meaning, labels=metric.labels)
        for series, distribution in found.items():
            histogram.add_metric(series, _buckets(metric, distribution), distribution.total)
        yield histogram


def _buckets(metric: Metric, found: Distribution) -> list[tuple[str, float]]:
    """How many values each bucket and those before it hold."""
    bounds = [*(f"{bound:g}" for bound in metric.buckets), "+Inf"]
    return list(zip(bounds, map(float, accumulate(found.counts)), strict=True))
