"""Finds what is wrong with a container before it is used: what is not registered, and circles.

The library reports a circle as a bare RecursionError, so it is looked for first.
"""

from collections.abc import Iterator

from dependency_injector import containers, providers
from dependency_injector.errors import Error

from domain.errors import PlatformError


class ContainerError(PlatformError):
    """A container cannot give what it declares."""

    code = "container.invalid"


class CircularDependencyError(ContainerError):
    """Providers need each other in a circle."""


class UnregisteredDependencyError(ContainerError):
    """A provider needs something that nobody registered."""


def check_container(container: containers.Container) -> list[str]:
    """Resolve every provider once and return their names.

    Raises:
        CircularDependencyError: naming the circle.
        UnregisteredDependencyError: naming what is missing and who needs it.
    """
    named = list(_named(container))
    names = {id(provider): name for name, provider in named}
    for _, provider in named:
        _refuse_circle(provider, (), names)
    resolved = []
    for name, provider in named:
        if isinstance(provider, providers.Dependency) and not provider.is_defined:
            raise UnregisteredDependencyError(f"Nobody registered {name}, and the container declares that it needs it.")
        if isinstance(provider, providers.FactoryAggregate):
            resolved += [f"{name}.{kind}" for kind in provider.providers]
            continue
        try:
            provider()
        except (Error, TypeError, AttributeError) as error:
            raise UnregisteredDependencyError(f"{name} cannot be built: {error}") from error
        resolved.append(name)
    return resolved


def _named(container: containers.Container, above: str = "") -> Iterator[tuple[str, providers.Provider[object]]]:
    for name, provider in container.providers.items():
        path = f"{above}{name}"
        if isinstance(provider, providers.Container):
            yield from _named(provider.container, f"{path}.")
        elif isinstance(provider, providers.DependenciesContainer) or name == "__self__":
            continue
        else:
            yield path, provider


def _refuse_circle(provider: providers.Provider[object], above: tuple[int, ...], names: dict[int, str]) -> None:
    if id(provider) in above:
        circle = [*above[above.index(id(provider)) :], id(provider)]
        raise CircularDependencyError(
            "These need each other in a circle: " + " → ".join(names.get(one, "?") for one in circle)
        )
    for needed in provider.related:
        if isinstance(needed, providers.Provider) and not isinstance(needed, providers.Self):
            _refuse_circle(needed, (*above, id(provider)), names)
