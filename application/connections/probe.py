"""Looks at a connection for its owner: which step fails, which tables there are."""

from collections.abc import Sequence
from dataclasses import dataclass

from application.connections.open_stores import OpenStores
from domain.errors import InvalidInputError, NotFoundError, PlatformError
from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.ports.data_store import StoreHealth
from domain.stores.connection import failing_step
from domain.stores.table import TableName, TableSchema


@dataclass(frozen=True)
class ConnectionProbe:
    """Tests connections and discovers their tables."""

    stores: OpenStores

    async def test(self, principal: Principal, name: str) -> StoreHealth:
        """Try a connection; a failure is an answer, not an error.

        Raises:
            NotFoundError: no such connection.
        """
        require(principal, Action.PREVIEW)
        spec = await self.stores.spec_of(principal.organization, name)
        try:
            store = await self.stores.get(principal.organization, spec)
        except PlatformError as error:
            return StoreHealth(is_healthy=False, step=failing_step(error), detail=error.message)
        return await store.health_check()

    async def tables(self, principal: Principal, name: str) -> Sequence[TableName]:
        """List the tables of a connection."""
        require(principal, Action.PREVIEW)
        return await (await self.stores.named(principal.organization, name)).tables()

    async def describe(self, principal: Principal, name: str, table: str) -> TableSchema:
        """Describe one table of a connection: `table`, `schema.table`, or the path of files.

        Raises:
            NotFoundError: no such table.
            InvalidInputError: it cannot be the name of one (`identifier.invalid`).
        """
        require(principal, Action.PREVIEW)
        store = await self.stores.named(principal.organization, name)
        found = await store.describe(TableName(table) if store.capabilities.has_paths else _parsed(table))
        if found is None:
            raise NotFoundError(f"There is no table {table}.", code="table.not_found")
        return found


def _parsed(table: str) -> TableName:
    try:
        return TableName.parse(table)
    except ValueError as error:
        raise InvalidInputError(str(error), code="identifier.invalid") from error
