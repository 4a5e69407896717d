"""The frame of the system: read this first, then its halves, gateways and use_cases."""

from pathlib import Path

from dependency_injector import containers, providers

from domain.ports.telemetry import ITelemetry
from entrypoints.composition.checking import check_wiring
from entrypoints.composition.gateways import Gateways
from entrypoints.composition.paths import Paths
from entrypoints.composition.telemetry import otlp_telemetry
from entrypoints.composition.use_cases import UseCases
from infrastructure.bench.bench import Bench
from infrastructure.clock import SystemClock
from infrastructure.observability.numbers import Numbers
from infrastructure.observability.prometheus import PrometheusPage
from infrastructure.observability.telemetry import ContextTelemetry
from infrastructure.runtime import RandomIdentifiers
from infrastructure.settings.tree import Settings


class Runtime(containers.DeclarativeContainer):
    """Clock, identifiers, telemetry; `process_id` names this process to others."""

    settings = providers.Dependency(instance_of=Settings)
    clock = providers.Singleton(SystemClock)
    identifiers = providers.Singleton(RandomIdentifiers)
    process_id = providers.Singleton(lambda identifiers: identifiers.new_id(), identifiers)
    numbers = providers.Singleton(Numbers)
    metrics_page = providers.Singleton(PrometheusPage, numbers)
    telemetry: providers.Selector[ITelemetry] = providers.Selector(
        settings.provided.telemetry.exporter,
        none=providers.Singleton(ContextTelemetry, numbers),
        otlp=providers.Singleton(otlp_telemetry, settings, process_id, numbers),
    )


class Container(containers.DeclarativeContainer):
    """Runtime (with what time and identity), gateways (through which adapters), use cases (doing what)."""

    settings = providers.Dependency(instance_of=Settings)
    paths = providers.Dependency(instance_of=Paths)

    runtime = providers.Container(Runtime, settings=settings)
    gateways = providers.Container(Gateways, settings=settings, paths=paths, clock=runtime.clock)
    use_cases = providers.Container(
        UseCases,
        settings=settings,
        identifiers=runtime.identifiers,
        process_id=runtime.process_id,
        telemetry=runtime.telemetry,
        metrics_page=runtime.metrics_page,
        gateways=gateways,
    )


def build_container(settings: Settings, project: Path, bench: Bench | None = None) -> Container:
    """Build a fresh container; nothing is opened yet, except a bench that is there already.

    Raises:
        CircularDependencyError, UnregisteredDependencyError: it cannot give what it declares.
    """
    container = Container(settings=providers.Object(settings), paths=providers.Object(Paths.of(settings, project)))
    check_wiring(container)
    if bench is not None:
        container.gateways.bench.override(providers.Object(bench))
    return container
