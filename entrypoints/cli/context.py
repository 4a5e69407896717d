"""What every command starts from: the project, the settings, and the system opened for one call."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from domain.identity.principal import Principal
    from entrypoints.client.in_process import InProcessClient
    from entrypoints.client.protocol import IClient
    from entrypoints.client.server import RemoteServer
    from entrypoints.composition.container import Container
    from entrypoints.composition.paths import Paths
    from entrypoints.composition.start import LoadedSettings
    from entrypoints.documents.project import Project
    from entrypoints.use_cases import UseCases

T = TypeVar("T")


@dataclass
class Cli:
    """One invocation. Everything is made when it is first asked for, so `--help` costs nothing."""

    flags: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    organization: str | None = None
    is_verbose: bool = False
    file: Path | None = None
    _has_sql: bool = False

    @cached_property
    def project(self) -> Project:
        """The project that the working directory lies in; outside of one, the project of the file that was named."""
        from entrypoints.documents.project import find_project, root_above

        profile = self.profile or os.environ.get("HEADRACE_PROFILE")
        start = Path.cwd()
        if self.file is not None and root_above(start) is None:
            start = self.file.absolute().parent
        return find_project(start, profile)

    @cached_property
    def loaded(self) -> LoadedSettings:
        """The settings with their origins; also sets up the logs and arms failpoints."""
        from entrypoints.composition.start import start

        return start(self.project.root, self.flags, quiet=not self.is_verbose)

    @cached_property
    def container(self) -> Container:
        """The whole system, not yet opened."""
        from entrypoints.composition.benches import checking_bench

        bench = checking_bench(self.loaded.settings)
        if self._has_sql:
            bench.warm()  # It gets ready while this process imports what it needs itself.
        from entrypoints.composition.container import build_container

        return build_container(self.loaded.settings, self.project.folder, bench)

    @property
    def paths(self) -> Paths:
        """Where the embedded files live."""
        from entrypoints.composition.paths import Paths

        return Paths.of(self.loaded.settings, self.project.folder)

    @property
    def principal(self) -> Principal:
        """The local administrator, named after the operating system's user."""
        from domain.identity.principal import Principal, Role

        organization = self.organization or self.loaded.settings.app.organization
        return Principal(f"cli:{_user()}", organization, frozenset({Role.PLATFORM_ADMIN}))

    def server(self) -> RemoteServer | None:
        """The running `headrace up` of this home, if there is one."""
        from entrypoints.client.server import find_server

        return find_server(self.paths)

    def refuse_beside_server(self, instead: str) -> None:
        """Refuse a command that needs the DuckDB file while `headrace up` owns it.

        Raises:
            BusyError: naming the call that works.
        """
        from domain.errors import BusyError
        from domain.stores.kinds import KINDS

        server = self.server()
        if server is not None and KINDS[self.loaded.settings.store.kind].has_one_process:
            raise BusyError(
                f"headrace up (process {server.pid}) owns the DuckDB file. Ask it instead: {server.curl(instead)}",
                code="store.in_use",
            )

    def client(self) -> IClient:
        """Who does what the command is about: the running `headrace up` of this home, if there is one, else this
        process.

        The key of that server is one of its own organization: for others this process works on the records.
        """
        server = self.server()
        if server is None or self.principal.organization != self.loaded.settings.app.organization:
            return self.own_client()
        from entrypoints.client.remote import RemoteClient

        return RemoteClient(server, self.own_client)

    def own_client(self) -> InProcessClient:
        """This process as the one that does it."""
        from entrypoints.client.in_process import InProcessClient

        return InProcessClient(lambda: self.container, self.principal)

    def call(self, action: Callable[[UseCases], Awaitable[T]]) -> T:
        """Open the system, do one thing in this process, close it: for rehearsals, which must have the stores to
        themselves.
        """
        with self.own_client() as client:
            return client.call(action)

    def look(self, action: Callable[[UseCases], Awaitable[T]]) -> T:
        """Do one thing for which nothing is opened."""
        from entrypoints.composition.lifecycle import unopened

        async def looked() -> T:
            async with unopened(self.container) as use_cases:
                return await action(use_cases)

        return asyncio.run(looked())

    def documents(self, path: Path | None) -> list[PutDocument]:
        """Read the documents of a file or project folder, all problems at once."""
        from domain.errors import InvalidInputError
        from entrypoints.documents.project import document_files

        self.file = self.file or path
        folder = path or self.project.folder
        if not _is_there(folder):
            raise InvalidInputError(f"{folder} does not exist.", code="file.unreadable")
        files = document_files(folder)
        if not files:
            raise InvalidInputError(
                f"There are no documents in {folder}: connections/*.yaml and pipelines/*.yaml are looked for.",
                code="project.empty",
            )
        return self.read(files)

    def read(self, files: list[Path]) -> list[PutDocument]:
        """Read these files, all problems at once."""
        from application.catalog.documents import PutDocument
        from entrypoints.composition.configuration import document_limits
        from entrypoints.documents.project import read_all

        found = read_all(files, self.project.variables, document_limits(self.loaded.settings))
        self._has_sql = self._has_sql or any(_has_sql(document.body) for document in found)
        return [PutDocument(document.kind, document.name, document.body) for document in found]


def _has_sql(body: Mapping[str, Any]) -> bool:
    parts = [body.get("source") or {}, *(body.get("transform") or ()), *(body.get("quality") or ())]
    return any("sql" in part or "query" in part for part in parts)


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # Its name is longer than any.
        return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
