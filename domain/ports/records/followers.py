"""The port to what runs after what."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class IFollowerRecords(ABC):
    """Which pipelines run after which."""

    @abstractmethod
    async def put(self, organization: str, pipeline: str, after: Sequence[str]) -> None:
        """Replace what a pipeline runs after."""

    @abstractmethod
    async def of(self, names: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], Sequence[str]]:
        """Return the followers of (organization, pipeline) pairs."""
