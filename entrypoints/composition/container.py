"""The whole system on one screen: read this first."""

from pathlib import Path

from dependency_injector import containers, providers

from entrypoints.composition.gateways import Gateways
from entrypoints.composition.paths import Paths
from entrypoints.composition.use_cases import UseCases
from infrastructure.bench.bench import Bench
from infrastructure.runtime import ContextTelemetry, RandomIdentifiers, SystemClock
from infrastructure.settings.tree import Settings


class Runtime(containers.DeclarativeContainer):
    """Clock, identifiers, telemetry."""

    clock = providers.Singleton(SystemClock)
    identifiers = providers.Singleton(RandomIdentifiers)
    telemetry = providers.Singleton(ContextTelemetry)


class Container(containers.DeclarativeContainer):
    """Runtime (with what time and identity), gateways (through which adapters), use cases (doing what)."""

    settings = providers.Dependency(instance_of=Settings)
    paths = providers.Dependency(instance_of=Paths)

    runtime = providers.Container(Runtime)
    gateways = providers.Container(Gateways, settings=settings, paths=paths, clock=runtime.clock)
    use_cases = providers.Container(
        UseCases,
        settings=settings,
        identifiers=runtime.identifiers,
        telemetry=runtime.telemetry,
        gateways=gateways,
    )


def build_container(settings: Settings, project: Path, bench: Bench | None = None) -> Container:
    """Build a fresh container; nothing is opened yet, except a bench that is there already."""
    container = Container(settings=providers.Object(settings), paths=providers.Object(Paths.of(settings, project)))
    if bench is not None:
        container.gateways.bench.override(providers.Object(bench))
    return container
