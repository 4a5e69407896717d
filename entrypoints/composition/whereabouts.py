"""Where connections lead, as far as their documents tell: whether they may, and which of them lead to one database."""

import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

from domain.pipelines.dialing import literal, plain
from domain.pipelines.local_path import folded
from domain.stores.connection import ConnectionSpec
from domain.stores.kinds import DUCKDB, POSTGRES
from entrypoints.composition.paths import Paths
from infrastructure.settings.rules import store_sign_in
from infrastructure.settings.tree import Settings


@dataclass(frozen=True)
class Whereabouts:
    """Looks at paths and hosts of connections and opens nothing."""

    settings: Settings
    paths: Paths

    def check_path(self, path: str) -> None:
        """Check where a path leads, links resolved.

        Raises:
            InvalidInputError: connections may not reach it (`path.forbidden`).
        """
        self.paths.confinement.place(path)

    def database(self, connection: ConnectionSpec | None) -> Hashable | None:
        """What is equal for connections that lead to one database; None of a connection is the store of the settings.

        None for what has no other way to it. A host is compared as it is written, as loopback, or as the address that
        it is.
        """
        if connection is None:
            return self._of_settings()
        options = connection.options
        if connection.kind == POSTGRES.name:
            return _postgres(options["host"], options["port"], options["database"])
        if connection.kind == DUCKDB.name:
            return _duckdb(self.paths.confinement.base / options["path"])
        return None

    def _of_settings(self) -> Hashable | None:
        store = self.settings.store
        if store.kind == POSTGRES.name:
            signs_in = store_sign_in(self.settings)
            return _postgres(signs_in.host, signs_in.port, signs_in.database)
        if store.kind == DUCKDB.name:
            path = store.duckdb.path
            return _duckdb(path or self.paths.data)
        return None


def _postgres(host: str, port: int, database: str) -> Hashable:
    name = host.lower().rstrip(".")
    address = literal(name)
    if name in ("", "localhost") or "/" in name or (address is not None and plain(address).is_loopback):
        return POSTGRES.name, "loopback", port, database
    return POSTGRES.name, str(plain(address)) if address is not None else name, port, database


def _duckdb(path: Path) -> Hashable:
    return DUCKDB.name, folded(os.path.realpath(path))
