"""Documents put, read, planned, applied and deleted: one story for pipelines and connections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from application.catalog.checks import Checks, ConnectionPlaces, problems_of
from application.catalog.differences import differences
from application.catalog.flows import FlowReader, Flows, downstream
from application.missing import missing
from domain.errors import InvalidInputError, PermissionDeniedError, Problem, SpecError
from domain.identity.policy import Action, is_allowed, require
from domain.identity.principal import Principal
from domain.pipelines.dialing import DialRules
from domain.pipelines.plan import ColumnForecast, Publishing, choose_publishing, guarantee
from domain.pipelines.spec import DEFAULT_CONNECTION, PipelineSpec
from domain.ports.records.documents import IDocumentRecords, StoredDocument
from domain.ports.records.page import Page
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.ports.secrets import ISecretProvider
from domain.ports.security import Cost, IQueryGuard
from domain.stores.connection import ConnectionSpec

_Known = Mapping[str, frozenset[str]]  # What queries name, by their texts.
KINDS = ("connection", "pipeline")
_ACTIONS = {"connection": Action.WRITE_CONNECTION, "pipeline": Action.WRITE_SPEC}


@dataclass(frozen=True)
class PutDocument:
    """A checked and normalized document to store."""

    kind: str
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """What applying would do to one document. `notes` say how it will publish, and what happens to its position;
    `columns` how each column of a pipeline lands.
    """

    action: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: tuple[ColumnForecast, ...] = ()


@dataclass(frozen=True)
class Catalog:
    """The documents of an organization."""

    records: IRecords
    guard: IQueryGuard
    secrets: Sequence[ISecretProvider]
    dialing: DialRules
    places: ConnectionPlaces
    check_seconds: float
    default_store: ConnectionSpec | None = None

    async def validate(self, commands: Sequence[PutDocument], stored: Sequence[ConnectionSpec] = ()) -> None:
        """Check what a document says in SQL, what secrets it refers to, and that its wishes agree; opens nothing.

        A query is checked for the engine of its connection, where that is the default one, is `stored` or is one of
        them.

        Raises:
            SpecError: with every problem of every document.
        """
        known = {connection.name: connection for connection in stored}
        known |= {c.name: ConnectionSpec.from_document(c.body) for c in commands if c.kind == "connection"}
        if self.default_store is not None:
            known[DEFAULT_CONNECTION] = self.default_store
        problems = [problem for command in commands for problem in await self._problems(command, known)]
        if problems:
            raise SpecError(problems)

    async def _validate(self, principal: Principal, commands: Sequence[PutDocument]) -> _Known:
        """As `validate`, knowing the connections that are stored; returns what all queries of pipelines name."""
        names = {str(c.body["source"].get("connection")) for c in commands if c.kind == "pipeline"}
        async with self.records.read(principal.scope) as unit:
            found = [await unit.connections.get(principal.organization, name) for name in sorted(names)]
            specs = await self._specs(unit, principal.organization, commands)
        await self.validate(commands, [ConnectionSpec.from_document(stored.document) for stored in found if stored])
        return await self._reader.relations(specs)

    async def _problems(self, command: PutDocument, known: Mapping[str, ConnectionSpec]) -> list[Problem]:
        cost = Cost()
        checks = Checks(self.guard.counting(cost), self.secrets, self.dialing, self.places)
        is_pipeline = command.kind == "pipeline"
        found = checks.of_pipeline(command.body, known) if is_pipeline else checks.of_connection(command.body)
        return await problems_of(f"{command.kind} {command.name}", found, self.check_seconds, cost)

    async def put(self, principal: Principal, command: PutDocument) -> tuple[StoredDocument, bool]:
        """Store a document; also say whether it is new.

        Raises:
            InvalidInputError: it names a connection that does not exist, or contradicts itself.
            PermissionDeniedError: it starts after other pipelines, and the caller may not start it.
        """
        require(principal, _ACTIONS[command.kind])
        known = await self._validate(principal, [command])  # Before anything is held that others wait for.
        async with self.records.unit(principal.scope) as unit:
            await unit.pipelines.hold(principal.organization)
            before = await _records(unit, command.kind).get(principal.organization, command.name)
            await self._check(unit, principal.organization, command, ())
            (await self._flows(unit, principal.organization, [command], known)).refuse_circles(_pipelines([command]))
            _check_after(principal, command, before)
            stored = await self._put(unit, principal, command)
            await unit.commit()
        return stored, before is None

    async def get(self, principal: Principal, kind: str, name: str) -> StoredDocument:
        """Return a document.

        Raises:
            NotFoundError: there is none of that name.
        """
        require(principal, Action.READ)
        async with self.records.read(principal.scope) as unit:
            stored = await _records(unit, kind).get(principal.organization, name)
        if stored is None:
            raise missing(kind, name)
        return stored

    async def page(
        self,
        principal: Principal,
        kind: str,
        *,
        after: str | None = None,
        limit: int = 100,
        most_characters: int | None = None,
    ) -> Page:
        """Return a page of documents, ordered by name."""
        require(principal, Action.READ)
        async with self.records.read(principal.scope) as unit:
            return await _records(unit, kind).page(
                principal.organization, after=after, limit=limit, most_characters=most_characters
            )

    async def revisions(
        self, principal: Principal, kind: str, name: str, *, before: int | None, limit: int, most_characters: int
    ) -> Sequence[StoredDocument]:
        """Return a document's revisions, newest first, or those before one."""
        await self.get(principal, kind, name)
        async with self.records.read(principal.scope) as unit:
            return await _records(unit, kind).revisions(
                principal.organization, name, before=before, limit=limit, most_characters=most_characters
            )

    async def delete(self, principal: Principal, kind: str, name: str) -> None:
        """Forget a document; runs and destination rows stay.

        Raises:
            NotFoundError: there is none of that name.
        """
        require(principal, _ACTIONS[kind])
        async with self.records.unit(principal.scope) as unit:
            await unit.pipelines.hold(principal.organization)
            if not await self._forget(unit, principal.organization, kind, name):
                raise missing(kind, name)
            await unit.audit.add(principal, f"delete {kind}", name)
            await unit.commit()

    async def plan(self, principal: Principal, commands: Sequence[PutDocument], *, prune: bool) -> list[Change]:
        """Say what applying a set of documents would change; nothing is stored or opened.

        Raises:
            InvalidInputError: a document names a connection that is neither stored nor in the set.
            PermissionDeniedError: there is a connection in the set, or a new `schedule.after`, that the caller may not
                store.
        """
        require(principal, Action.PREVIEW)
        if any(command.kind == "connection" for command in commands):
            require(principal, Action.WRITE_CONNECTION)
        known = await self._validate(principal, commands)
        async with self.records.read(principal.scope) as unit:
            return await self._changes(unit, principal, commands, known, prune=prune)

    async def apply(self, principal: Principal, commands: Sequence[PutDocument], *, prune: bool) -> list[Change]:
        """Store a set of documents in one transaction; with `prune`, forget those not in the set."""
        for kind in {command.kind for command in commands} or set(KINDS):
            require(principal, _ACTIONS[kind])
        known = await self._validate(principal, commands)
        async with self.records.unit(principal.scope) as unit:
            await unit.pipelines.hold(principal.organization)
            changes = await self._changes(unit, principal, commands, known, prune=prune)
            for command in sorted(commands, key=lambda command: KINDS.index(command.kind)):
                await self._put(unit, principal, command)
            for change in changes:
                if change.action == "delete":
                    require(principal, _ACTIONS[change.kind])
                    await self._forget(unit, principal.organization, change.kind, change.name)
                    await unit.audit.add(principal, f"delete {change.kind}", change.name)
            await unit.commit()
        return changes

    async def _put(self, unit: IUnitOfWork, principal: Principal, command: PutDocument) -> StoredDocument:
        records = _records(unit, command.kind)
        stored = await records.put(principal.organization, command.name, dict(command.body), principal.subject)
        if command.kind == "pipeline":
            after = PipelineSpec.from_document(command.body).after
            await unit.followers.put(principal.organization, command.name, after)
        await unit.audit.add(principal, f"put {command.kind}", command.name)
        return stored

    async def _forget(self, unit: IUnitOfWork, organization: str, kind: str, name: str) -> bool:
        if kind == "pipeline":
            await unit.followers.put(organization, name, ())
        return await _records(unit, kind).delete(organization, name)

    async def _changes(
        self,
        unit: IUnitOfWork,
        principal: Principal,
        commands: Sequence[PutDocument],
        known: _Known,
        *,
        prune: bool,
    ) -> list[Change]:
        organization = principal.organization
        beside = {command.name for command in commands if command.kind == "connection"}
        flows = await self._flows(unit, organization, commands, known)
        if commands:
            flows.refuse_circles(_pipelines(commands))
        uses = flows.uses()
        changes = []
        for command in sorted(commands, key=lambda command: (KINDS.index(command.kind), command.name)):
            await self._check(unit, organization, command, beside)
            before = await _records(unit, command.kind).get(organization, command.name)
            _check_after(principal, command, before)
            changes.append(_change(command, before, downstream(command.kind, command.name, uses)))
        if prune:
            given = {(command.kind, command.name) for command in commands}
            for kind in reversed(KINDS):
                for name in await _records(unit, kind).parts(organization, []):
                    if (kind, name) not in given:
                        changes.append(Change("delete", kind, name, notes=downstream(kind, name, uses)))
        return changes

    async def _check(
        self, unit: IUnitOfWork, organization: str, command: PutDocument, beside: Sequence[str] | set[str]
    ) -> None:
        """Check what the document alone cannot tell: that its connections exist."""
        if command.kind != "pipeline":
            return
        spec = PipelineSpec.from_document(command.body)
        for name in spec.connections - {DEFAULT_CONNECTION, *beside}:
            if await unit.connections.get(organization, name) is None:
                raise InvalidInputError(
                    f"The pipeline {spec.name} names the connection {name}, which does not exist.",
                    code="spec.connection_unknown",
                )

    async def _specs(
        self, unit: IUnitOfWork, organization: str, commands: Sequence[PutDocument]
    ) -> dict[str, PipelineSpec]:
        bodies = [{c.name: c.body for c in commands if c.kind == kind} for kind in KINDS]
        return await self._reader.specs(unit, organization, *bodies)

    async def _flows(
        self, unit: IUnitOfWork, organization: str, commands: Sequence[PutDocument], known: _Known
    ) -> Flows:
        """What the pipelines move that would be stored."""
        return await self._reader.flows(await self._specs(unit, organization, commands), known)

    @property
    def _reader(self) -> FlowReader:
        return FlowReader(self.guard, self.places)


def _pipelines(commands: Sequence[PutDocument]) -> list[str]:
    return [command.name for command in commands if command.kind == "pipeline"]


def _check_after(principal: Principal, command: PutDocument, before: StoredDocument | None) -> None:
    """Who makes a pipeline start by itself has to be allowed to start it."""
    if command.kind != "pipeline" or is_allowed(principal, Action.TRIGGER):
        return
    after = set(PipelineSpec.from_document(command.body).after)
    stood = set(PipelineSpec.from_document(before.document).after) if before is not None else set()
    if after and after != stood:
        raise PermissionDeniedError(
            f"schedule.after of {command.name} needs TRIGGER: it starts runs, and {principal.subject} may not "
            f"{Action.TRIGGER.value} in {principal.organization}. Leave schedule.after as it is stored, or let a "
            "pipeline_admin put the document."
        )


def _change(command: PutDocument, before: StoredDocument | None, downstream: tuple[str, ...]) -> Change:
    fields = () if before is None else tuple(differences(before.document, command.body))
    action = "create" if before is None else "update" if fields else "keep"
    notes = downstream if action == "keep" else (*_notes(command, before), *downstream)
    return Change(action, command.kind, command.name, fields, notes)


def _notes(command: PutDocument, before: StoredDocument | None) -> tuple[str, ...]:
    if command.kind != "pipeline":
        return ()
    spec = PipelineSpec.from_document(command.body)
    notes = how_it_publishes(spec)
    if before is not None:
        if PipelineSpec.from_document(before.document).fingerprint == spec.fingerprint:
            notes.append("keeps its position")
        else:
            notes.append("starts again, because source, cursor, key or destination changed; the next run asks how")
    return tuple(notes)


def how_it_publishes(spec: PipelineSpec, planned: Publishing | None = None) -> list[str]:
    """Say when rows become visible, and what is guaranteed of them; as far as the document alone tells, if no read is
    planned yet.
    """
    publishing = planned or choose_publishing(
        spec, ordered=bool(spec.source.key or spec.source.path or spec.source.table)
    )
    return [f"publish: {publishing.publish.value}, because {publishing.reason}", guarantee(spec, publishing)]


def _records(unit: IUnitOfWork, kind: str) -> IDocumentRecords:
    return unit.pipelines if kind == "pipeline" else unit.connections
