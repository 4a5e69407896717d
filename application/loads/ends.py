"""The two ends of a load, opened once: where its rows come from, and where they go."""

from collections.abc import Sequence
from dataclasses import dataclass

from application.connections.open_stores import OpenStores
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import IDataStore, ISource
from domain.stores.connection import ConnectionSpec


@dataclass(frozen=True)
class Ends:
    """Source and destination of a pipeline, each with the connection that it was opened by."""

    organization: str
    source_connection: ConnectionSpec
    source: ISource
    destination_connection: ConnectionSpec
    destination: IDataStore

    @property
    def is_one_store(self) -> bool:
        """Whether both are the same connection."""
        return self.source_connection == self.destination_connection


def connections_of(spec: PipelineSpec) -> tuple[str, str]:
    """The names of the connections at both ends of a pipeline, the source's first."""
    return spec.source.connection, spec.destination.connection


async def open_ends(stores: OpenStores, organization: str, connections: Sequence[ConnectionSpec]) -> Ends:
    """Open both ends of a pipeline by their connections, the source's first.

    Raises:
        InvalidInputError: the destination can only be read from (`connection.read_only`).
        StoreUnavailableError: one cannot be opened.
    """
    source, destination = connections
    landing = await stores.destination(organization, destination)
    return Ends(organization, source, await stores.get(organization, source), destination, landing)
