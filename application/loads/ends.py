"""The two ends of a load, opened once: where its rows come from, and where they go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from application.connections.open_stores import OpenStores
from domain.errors import InvalidInputError, UnavailableError
from domain.pipelines.spec import PipelineSpec
from domain.ports.data_store import IDataStore, ISource
from domain.stores.connection import ConnectionSpec, known_step


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

    async def check_health(self) -> None:
        """Try both stores before anything is read or written.

        Raises:
            UnavailableError: one does not work; the sentence names the connection and the step that failed.
        """
        is_only_read = not self.is_one_store
        with _telling("source", self.source_connection):
            await _check(self.source, is_only_read=is_only_read)
        if is_only_read:
            with _telling("destination", self.destination_connection):
                await _check(self.destination)

    def check_merges(self) -> None:
        """Refuse rows that land by their key where the destination cannot do that.

        Raises:
            InvalidInputError: it cannot (`destination.merge_unsupported`).
        """
        if not self.destination.capabilities.merges:
            raise InvalidInputError(
                f"The connection {self.destination_connection.name} cannot merge: choose mode append or replace.",
                code="destination.merge_unsupported",
            )


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
    with _telling("destination", destination):
        landing = await stores.destination(organization, destination)
    with _telling("source", source):
        reading = await stores.get(organization, source)
    return Ends(organization, source, reading, destination, landing)


@contextmanager
def _telling(end: str, connection: ConnectionSpec) -> Iterator[None]:
    """Say of a store that is not to be had whose it is and which step failed."""
    try:
        yield
    except UnavailableError as error:
        step = known_step(error)
        error.message = (
            f"The {end} {connection.name} {f'failed at {step}' if step else 'is not usable'}: {error.message}"
        )
        error.args = (error.message,)
        raise


async def _check(store: ISource, *, is_only_read: bool = False) -> None:
    health = await store.health_check()
    if health.error is not None and not (is_only_read and health.step == "write"):
        raise health.error
