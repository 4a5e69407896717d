"""Finds what is wrong with a container before it is used: what is not registered, and circles.

The library reports a circle as a bare RecursionError, so it is looked for first.
"""

from collections.abc import Iterator

from dependency_injector import containers, providers
from dependency_injector.errors import Error

from domain.errors import PlatformError, ScopeError


class ContainerError(PlatformError):
    """A container cannot give what it declares."""

    code = "container.invalid"


class CircularDependencyError(ContainerError):
    """Providers need each other in a circle."""


class UnregisteredDependencyError(ContainerError):
    """A provider needs something that nobody registered."""


def check_wiring(container: containers.Container) -> None:
    """Look at how providers depend on each other, and build none; every program does that when it starts.

    Raises:
        CircularDependencyError: naming the circle.
        UnregisteredDependencyError: naming what is missing.
    """
    named = list(_named(container))
    names = {id(provider): name for name, provider in named}
    sound: set[int] = set()
    for _, provider in named:
        _refuse_circle(provider, (), names, sound)
    for name, provider in named:
        if isinstance(provider, providers.Dependency) and not provider.is_defined:
            raise UnregisteredDependencyError(f"Nobody registered {name}, and the container declares that it needs it.")


def check_container(container: containers.Container) -> list[str]:
    """Resolve every provider once and return their names.

    Raises:
        CircularDependencyError: naming the circle.
        UnregisteredDependencyError: naming what is missing and who needs it.
    """
    check_wiring(container)
    resolved = []
    for name, provider in _named(container):
        if isinstance(provider, providers.FactoryAggregate):
            resolved += [f"{name}.{kind}" for kind in provider.providers]
            continue
        try:
            provider()
        except ScopeError:
            pass  # What lives in a scope cannot be had before one is begun.
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


def _refuse_circle(
    provider: providers.Provider[object], above: tuple[int, ...], names: dict[int, str], sound: set[int]
) -> None:
    """Look through what a provider needs, but for what was found `sound` before."""
    if id(provider) in above:
        circle = [*above[above.index(id(provider)) :], id(provider)]
        raise CircularDependencyError(
            "These need each other in a circle: " + " → ".join(names.get(one, "?") for one in circle)
        )
    if id(provider) in sound:
        return
    for needed in provider.related:
        if isinstance(needed, providers.Provider) and not isinstance(needed, providers.Self):
            _refuse_circle(needed, (*above, id(provider)), names, sound)
    sound.add(id(provider))
