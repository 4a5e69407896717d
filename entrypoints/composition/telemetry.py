"""Who is told of what is measured, as the settings say; OpenTelemetry is imported only where it is told."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version

from application.telemetry import traced
from domain.ports.telemetry import ITelemetry
from entrypoints.use_cases import UseCases
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.options import OtelOptions
from infrastructure.pairs import pairs
from infrastructure.settings.tree import Settings

UNTRACED = {
    "executor": "a run is a span of its own, with what it was and how it ended",
    "claimer": "whoever takes a ring makes a span of it, which belongs to the trace of the ring",
    "tender": "looks around at every tick, for nobody",
    "announcer": "tells what was stored, for nobody",
    "doorbell": "a ring is a span of its own",
    "health": "is asked by probes",
    "measurer": "looks around at every tick, for nobody",
    "metrics": "is asked by whatever watches the process, every few seconds",
    "life": "waits",
    "workers.beat": "is done at every tick, for nobody",
    "workers.leave": "is the end of a process",
}
"""The use cases, or what of them, whose calls are no spans by themselves, and why."""

_OF_QUEUES = {"redis": "redis", "kafka": "aiokafka"}


def otlp_telemetry(settings: Settings, instance_id: str, numbers: Numbers) -> ITelemetry:
    """Build what tells a collector."""
    from infrastructure.observability.otel import OtelTelemetry

    return OtelTelemetry(otel_options(settings, instance_id), numbers)


def otel_options(settings: Settings, instance_id: str) -> OtelOptions:
    """Read it from the settings."""
    chosen = settings.telemetry
    resource = {
        "service.name": settings.app.name,
        "service.version": version("headrace"),
        "service.instance.id": instance_id,
        "deployment.environment.name": settings.app.environment,
        **pairs(chosen.resource_attributes or ""),
    }
    if chosen.service_name is not None:
        resource["service.name"] = chosen.service_name
    exporters = {"traces": chosen.traces_exporter, "metrics": chosen.metrics_exporter}
    of_queue = _OF_QUEUES.get(settings.queue.kind)
    return OtelOptions(
        resource=resource,
        endpoint=chosen.exporter_endpoint,
        protocol=chosen.protocol,
        headers=pairs(chosen.headers.get_secret_value()) if chosen.headers is not None else {},
        timeout_seconds=chosen.timeout_ms / 1000,
        rate=chosen.rate,
        by_parent=chosen.by_parent,
        queue_size=chosen.queue_size,
        batch_size=chosen.batch_size,
        delay_seconds=chosen.delay_ms / 1000,
        flush_seconds=chosen.flush_ms / 1000,
        metrics_interval_seconds=chosen.metrics_interval_ms / 1000,
        signals=frozenset(signal for signal, exporter in exporters.items() if exporter != "none"),
        instrumented=("sqlalchemy", "urllib3", *([of_queue] if of_queue else [])),
    )


def with_spans(use_cases: UseCases, telemetry: ITelemetry) -> UseCases:
    """Let every call of a use case be a span, but for those that say why they are none."""
    for part, name, found in traceable(use_cases):
        if part not in UNTRACED and f"{part}.{name}" not in UNTRACED:
            method = getattr(found, name)
            # Of the object, as frozen as it is: whoever else holds it calls the same.
            object.__setattr__(found, name, traced(telemetry, f"{type(found).__name__}.{name}")(method))
    return use_cases


def traceable(use_cases: UseCases) -> Iterator[tuple[str, str, object]]:
    """What doors may await of the use cases: the part, the method's name, and the object that has it."""
    for field in fields(use_cases):
        found = getattr(use_cases, field.name)
        if not type(found).__module__.startswith("application."):
            continue
        for name, _ in inspect.getmembers(type(found), inspect.iscoroutinefunction):
            if not name.startswith("_"):
                yield field.name, name, found
