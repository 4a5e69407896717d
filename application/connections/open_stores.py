"""One open store per organization and connection revision, shared by all who need it and closed with the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from application.missing import missing
from domain.errors import InvalidInputError
from domain.identity.scope import Scope
from domain.pipelines.spec import DEFAULT_CONNECTION
from domain.ports.data_store import IDataStore, ISource
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.ports.secrets import ISecretProvider, Secret
from domain.stores.connection import ConnectionSpec

StoreBuilder = Callable[[str, ConnectionSpec, Mapping[str, Secret]], ISource]
"""Builds a store of an organization from its spec and resolved secrets; does no I/O."""

DEFAULT_SPEC = ConnectionSpec(name=DEFAULT_CONNECTION, kind="default")


class OpenStores:
    """Hands out open stores. `default` is the store of the settings; the rest come from connection documents."""

    def __init__(
        self,
        records: IRecords,
        default: ISource,
        build: StoreBuilder,
        secrets: Iterable[ISecretProvider],
    ) -> None:
        self._records = records
        self._default = default
        self._build = build
        self._secrets = {provider.scheme: provider for provider in secrets}
        self._open: dict[tuple[str, str], tuple[ConnectionSpec, ISource]] = {}
        # One for each connection: a host that does not answer keeps only those waiting who want that host.
        self._guards: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._beside: Mapping[str, ConnectionSpec] = {}
        self._standing_in: Mapping[str, ISource] = {}
        self._above: OpenStores | None = None

    @asynccontextmanager
    async def beside(
        self, specs: Mapping[str, ConnectionSpec], standing_in: Mapping[str, ISource]
    ) -> AsyncIterator["OpenStores"]:
        """Hand out stores as if these connections were stored too, and `standing_in` in the place of connections by
        name; what is opened for them is closed after the block.
        """
        other = OpenStores(self._records, self._default, self._build, self._secrets.values())
        other._beside, other._standing_in, other._above = specs, standing_in, self
        try:
            yield other
        finally:
            await other.close()

    async def named(self, organization: str, name: str) -> ISource:
        """Return the open store of a connection by its name.

        Raises:
            NotFoundError: there is none of that name (`connection.not_found`).
            StoreUnavailableError: it cannot be opened.
        """
        return await self.get(organization, await self.spec_of(organization, name))

    async def named_destination(self, organization: str, name: str) -> IDataStore:
        """Return the open store of a connection by its name, to be written to; raises as `named` and `destination`."""
        return await self.destination(organization, await self.spec_of(organization, name))

    async def destination(self, organization: str, spec: ConnectionSpec) -> IDataStore:
        """Return the open store of a connection, to be written to.

        Raises:
            InvalidInputError: there is no writing to it (`connection.read_only`).
            StoreUnavailableError: it cannot be opened.
        """
        store = await self.get(organization, spec)
        if not isinstance(store, IDataStore):
            raise InvalidInputError(f"A {spec.kind} connection can only be read from.", code="connection.read_only")
        return store

    async def spec_of(self, organization: str, name: str) -> ConnectionSpec:
        """Load the spec of a connection.

        Raises:
            NotFoundError: there is none of that name (`connection.not_found`).
        """
        return (await self.specs_of(organization, [name]))[0]

    async def specs_of(self, organization: str, names: Sequence[str]) -> list[ConnectionSpec]:
        """Load the specs of connections at once.

        Raises:
            NotFoundError: there is none of a name (`connection.not_found`).
        """
        if all(name == DEFAULT_CONNECTION or name in self._beside for name in names):
            return await self.specs_in(None, organization, names)
        async with self._records.read(Scope(organization)) as unit:
            return await self.specs_in(unit, organization, names)

    async def specs_in(self, unit: IUnitOfWork | None, organization: str, names: Sequence[str]) -> list[ConnectionSpec]:
        """As `specs_of`, in a transaction that reads more; it is not asked for connections that are not stored."""
        found = {DEFAULT_CONNECTION: DEFAULT_SPEC, **self._beside}
        for name in names:
            if name not in found:
                stored = await unit.connections.get(organization, name) if unit is not None else None
                if stored is None:
                    raise missing("connection", name, remedy="; apply its file first")
                found[name] = ConnectionSpec.from_document(stored.document)
        return [found[name] for name in names]

    async def get(self, organization: str, spec: ConnectionSpec) -> ISource:
        """Return the open store of a connection; a changed spec closes the old store and opens a new one.

        Raises:
            StoreUnavailableError: it cannot be opened.
        """
        if self._above is not None and spec == DEFAULT_SPEC and spec.name not in self._standing_in:
            return await self._above.get(organization, spec)  # There is one, whoever asks for it.
        key = (organization, spec.name)
        async with self._guard(key):
            found = self._open.get(key)
            if found is not None and found[0] == spec:
                return found[1]
            if found is not None:
                del self._open[key]
                await found[1].close()
            store = self._standing_in.get(spec.name)
            if store is None:
                store = self._default if spec == DEFAULT_SPEC else await self.built(organization, spec)
            try:
                await store.open()
            except BaseException:
                await store.close()
                raise
            self._open[key] = (spec, store)
            return store

    async def built(self, organization: str, spec: ConnectionSpec) -> ISource:
        """Resolve the spec's secrets and build its store, without opening it."""
        resolved = {}
        for option, reference in spec.secrets.items():
            scheme, _, name = reference.partition(":")
            provider = self._secrets.get(scheme)
            if provider is None:
                raise InvalidInputError(f"There are no secrets of the scheme {scheme}.", code="secret.scheme")
            resolved[option] = await provider.resolve(organization, name)
        return self._build(organization, spec, resolved)

    async def close(self) -> None:
        """Close every store, the last opened first; all are tried even if one fails."""
        keys = reversed([*dict.fromkeys([*self._open, *self._guards])])
        results = await asyncio.gather(*(self._close(key) for key in keys), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _close(self, key: tuple[str, str]) -> None:
        async with self._guard(key):  # What is being opened is waited for.
            found = self._open.pop(key, None)
            if found is not None:
                await found[1].close()

    def _guard(self, key: tuple[str, str]) -> asyncio.Lock:
        return self._guards.setdefault(key, asyncio.Lock())
