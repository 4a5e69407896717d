"""What every store is: opened, asked how it is, asked what tables it has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import PlatformError
from domain.stores.capabilities import Capabilities
from domain.stores.table import TableName, TableSchema


@dataclass(frozen=True)
class StoreHealth:
    """Whether a store works; `step` names the first one that failed: name, network, tls, sign_in, query, write. `error`
    is what whoever uses it now would be told.
    """

    is_healthy: bool
    step: str | None = None
    detail: str | None = None
    error: PlatformError | None = None


class IStore(ABC):
    """A place of the users' tables; the clauses are `IDataStore`'s."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What it promises beside its methods."""

    @abstractmethod
    async def open(self) -> None:
        """Connect. The caller closes, also when this raises."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything; harmless when nothing is open."""

    @abstractmethod
    async def health_check(self) -> StoreHealth:
        """Try the store and say which step failed; never raises."""

    @abstractmethod
    async def tables(self) -> Sequence[TableName]:
        """List the tables that can be read, ordered by name, without Headrace's own."""

    @abstractmethod
    async def describe(self, table: TableName, *, with_bound: bool = False) -> TableSchema | None:
        """Describe a table, or None if there is none; what would be lost with it only on request, which
        takes longer.
        """
