"""The ports that keep the doors: keys and whose they are, and what a user's SQL may be."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from domain.stores.connection import ConnectionSpec

TOO_LARGE = "query.too_large"
"""The code of what takes too much memory or time to be looked at."""


@dataclass
class Cost:
    """How many seconds of a processor something has taken until now."""

    seconds: float = 0.0


class IApiKeys(ABC):
    """API keys: shown once, stored as a digest.

    1. A new key has a prefix that finds it and a random part that proves it.
    2. `matches` takes the same time for a wrong key as for a right one.
    3. Text that is not shaped like a key has no prefix.
    """

    @abstractmethod
    def new(self) -> tuple[str, str, str]:
        """Return (key, prefix, digest)."""

    @abstractmethod
    def prefix_of(self, key: str) -> str | None:
        """Return the prefix of a key, or None if it is not shaped like one."""

    @abstractmethod
    def matches(self, key: str, digest: str) -> bool:
        """Compare a key with a stored digest."""


class IQueryGuard(ABC):
    """Judges SQL that users write, before any store sees it.

    1. A source query is one statement that only reads and names no table of Headrace's own.
    2. A transform is one row-wise, repeatable SELECT over `batch`; a rule's predicate is one such expression.
    3. What cannot be parsed is refused.
    4. The relations of a query are those it reads, without its own CTEs; of what cannot be parsed none are known.
    5. What takes too much memory or time to be judged is refused (`query.too_large`), and the event loop goes on
    meanwhile.
    6. What judging takes of a processor is counted, also of what is refused.
    """

    @abstractmethod
    def counting(self, cost: Cost) -> "IQueryGuard":
        """Give this guard, which adds what it takes to a cost."""

    @abstractmethod
    async def relations(self, query: str) -> frozenset[str]:
        """Name the tables a query reads, as `table` or `schema.table`."""

    @abstractmethod
    async def check_source(self, query: str, connection: ConnectionSpec | None = None) -> None:
        """Check a source query, for the engine of a connection where that is known.

        Raises:
            QueryRefusedError: saying why (`query.…`).
        """

    @abstractmethod
    async def check_transform(self, sql: str) -> None:
        """Check a transform.

        Raises:
            InvalidInputError: saying why (`transform.…` or `query.…`).
        """

    @abstractmethod
    async def check_predicate(self, expression: str) -> None:
        """Check the expression of an `sql` rule.

        Raises:
            InvalidInputError: saying why.
        """
