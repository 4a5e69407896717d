"""The port to secrets, and the value that never shows itself."""

from abc import ABC, abstractmethod
from typing import Any


class Secret:
    """A secret text that prints `***` everywhere; `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, to be handed to a driver and nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a secret cannot be pickled")


class ISecretProvider(ABC):
    """Resolves references of one scheme.

    1. A known reference is resolved to its value at every call.
    2. An unknown one raises `NotFoundError` (`secret.not_found`) naming the reference, never a value.
    3. A reference outside the organization's confinement is refused with `InvalidInputError` (`secret.forbidden`).
    4. `check` refuses what can be told from the reference alone, and looks at nothing: neither value nor file.
    """

    @property
    @abstractmethod
    def scheme(self) -> str:
        """The part of a reference before the colon."""

    @abstractmethod
    def check(self, name: str) -> None:
        """Refuse a reference that is outside of the confinement, without looking at what it refers to."""

    @abstractmethod
    async def resolve(self, organization: str, name: str) -> Secret:
        """Resolve the part of a reference after the colon."""
