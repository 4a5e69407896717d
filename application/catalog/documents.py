"""Documents put, read, planned, applied and deleted: one story for pipelines and connections."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from application.catalog.checks import Checks, ConnectionPlaces, problems_of
from application.catalog.differences import differences
from application.missing import missing
from domain.errors import InvalidInputError, PermissionDeniedError, Problem, SpecError
from domain.identity.policy import Action, is_allowed, require
from domain.identity.principal import Principal
from domain.lineage.graph import Dataset, dataset, find_circle, reached_from
from domain.pipelines.dialing import DialRules
from domain.pipelines.plan import ColumnForecast, Publishing, choose_publishing, guarantee
from domain.pipelines.spec import DEFAULT_CONNECTION, PipelineSpec
from domain.ports.secrets import ISecretProvider
from domain.ports.security import IQueryGuard
from domain.ports.unit_of_work import IDocumentRecords, IRecords, IUnitOfWork, Page, StoredDocument
from domain.stores.connection import ConnectionSpec

_Reads = dict[str, list[Dataset]]  # What pipelines read, by their names.
_PIPELINE = "a pipeline"  # No connection can have this name.
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

    async def _validate(self, principal: Principal, commands: Sequence[PutDocument]) -> None:
        """As `validate`, knowing the connections that are stored."""
        names = {str(c.body["source"].get("connection")) for c in commands if c.kind == "pipeline"}
        async with self.records.view() as unit:
            found = [await unit.connections.get(principal.organization, name) for name in sorted(names)]
        await self.validate(commands, [ConnectionSpec.from_document(stored.document) for stored in found if stored])

    async def _problems(self, command: PutDocument, known: Mapping[str, ConnectionSpec]) -> list[Problem]:
        checks = Checks(self.guard, self.secrets, self.dialing, self.places)
        is_pipeline = command.kind == "pipeline"
        found = checks.of_pipeline(command.body, known) if is_pipeline else checks.of_connection(command.body)
        return await problems_of(f"{command.kind} {command.name}", found, self.check_seconds)

    async def put(self, principal: Principal, command: PutDocument) -> tuple[StoredDocument, bool]:
        """Store a document; also say whether it is new.

        Raises:
            InvalidInputError: it names a connection that does not exist, or contradicts itself.
            PermissionDeniedError: it starts after other pipelines, and the caller may not start it.
        """
        require(principal, _ACTIONS[command.kind])
        await self._validate(principal, [command])  # Before anything is held that others wait for.
        async with self.records.unit() as unit:
            before = await _records(unit, command.kind).get(principal.organization, command.name)
            await self._check(unit, principal.organization, command, ())
            specs = await self._specs(unit, principal.organization, [command])
            self._refuse_circles(specs, await self._reads(specs), [command])
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
        async with self.records.view() as unit:
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
        async with self.records.view() as unit:
            return await _records(unit, kind).page(
                principal.organization, after=after, limit=limit, most_characters=most_characters
            )

    async def revisions(
        self, principal: Principal, kind: str, name: str, *, before: int | None, limit: int, most_characters: int
    ) -> Sequence[StoredDocument]:
        """Return a document's revisions, newest first, or those before one."""
        await self.get(principal, kind, name)
        async with self.records.view() as unit:
            return await _records(unit, kind).revisions(
                principal.organization, name, before=before, limit=limit, most_characters=most_characters
            )

    async def delete(self, principal: Principal, kind: str, name: str) -> None:
        """Forget a document; runs and destination rows stay.

        Raises:
            NotFoundError: there is none of that name.
        """
        require(principal, _ACTIONS[kind])
        async with self.records.unit() as unit:
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
        await self._validate(principal, commands)
        async with self.records.view() as unit:
            return await self._changes(unit, principal, commands, prune=prune)

    async def apply(self, principal: Principal, commands: Sequence[PutDocument], *, prune: bool) -> list[Change]:
        """Store a set of documents in one transaction; with `prune`, forget those not in the set."""
        for kind in {command.kind for command in commands} or set(KINDS):
            require(principal, _ACTIONS[kind])
        await self._validate(principal, commands)
        async with self.records.unit() as unit:
            changes = await self._changes(unit, principal, commands, prune=prune)
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
        self, unit: IUnitOfWork, principal: Principal, commands: Sequence[PutDocument], *, prune: bool
    ) -> list[Change]:
        organization = principal.organization
        beside = {command.name for command in commands if command.kind == "connection"}
        specs = await self._specs(unit, organization, commands)
        reads = await self._reads(specs)
        self._refuse_circles(specs, reads, commands)
        flows = [flow for spec in specs.values() for flow in _uses(spec, reads)]
        changes = []
        for command in sorted(commands, key=lambda command: (KINDS.index(command.kind), command.name)):
            await self._check(unit, organization, command, beside)
            before = await _records(unit, command.kind).get(organization, command.name)
            _check_after(principal, command, before)
            changes.append(_change(command, before, _downstream(command.kind, command.name, flows)))
        if prune:
            given = {(command.kind, command.name) for command in commands}
            for kind in reversed(KINDS):
                for stored in await _all(_records(unit, kind), organization):
                    if (kind, stored.name) not in given:
                        notes = _downstream(kind, stored.name, flows)
                        changes.append(Change("delete", kind, stored.name, notes=notes))
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
        """The pipelines that would be stored, by name; connections that lead to one database have one name in them."""
        found: dict[str, dict[str, Mapping[str, Any]]] = {}
        for kind in KINDS:
            found[kind] = {stored.name: stored.document for stored in await _all(_records(unit, kind), organization)}
            found[kind] |= {command.name: command.body for command in commands if command.kind == kind}
        names = self._names([ConnectionSpec.from_document(body) for body in found["connection"].values()])
        specs = {name: PipelineSpec.from_document(body) for name, body in found["pipeline"].items()}
        return {
            name: replace(
                spec,
                source=replace(spec.source, connection=names.get(spec.source.connection, spec.source.connection)),
                destination=replace(
                    spec.destination,
                    connection=names.get(spec.destination.connection, spec.destination.connection),
                ),
            )
            for name, spec in specs.items()
        }

    def _names(self, connections: Sequence[ConnectionSpec]) -> dict[str, str]:
        """For each connection the name of the first that leads to its database."""
        first = {self.places.database(None): DEFAULT_CONNECTION}
        for connection in sorted(connections, key=lambda each: each.name):
            first.setdefault(self.places.database(connection), connection.name)
        first.pop(None, None)
        return {each.name: first.get(self.places.database(each), each.name) for each in connections}

    async def _reads(self, specs: Mapping[str, PipelineSpec]) -> _Reads:
        """Name what each pipeline reads."""
        reads: _Reads = {}
        for spec in specs.values():
            names = {str(spec.source.table)} if spec.source.table else set()
            if spec.source.query is not None:
                names |= await self.guard.relations(spec.source.query)
            reads[spec.name] = [dataset(spec.source.connection, name) for name in names]
        return reads

    def _refuse_circles(
        self, specs: Mapping[str, PipelineSpec], reads: _Reads, commands: Sequence[PutDocument]
    ) -> None:
        """Refuse documents that would make data flow in a circle, together with what is stored."""
        given = [specs[command.name] for command in commands if command.kind == "pipeline"]
        circle = find_circle(flow for spec in specs.values() for flow in _flows(spec, reads)) if commands else None
        if circle is not None:
            tables = " → ".join(f"{connection}:{table}" for connection, table in circle)
            raise InvalidInputError(f"These pipelines would move data in a circle: {tables}.", code="spec.circle")
        for spec in given:
            for name in spec.after:
                if name not in specs:
                    raise InvalidInputError(
                        f"{spec.name} runs after {name}, and there is no such pipeline.", code="spec.after_unknown"
                    )
        waits = find_circle(
            (("after", waited_for), ("after", spec.name)) for spec in specs.values() for waited_for in spec.after
        )
        if waits is not None:
            names = " → ".join(name for _, name in waits)
            raise InvalidInputError(f"These pipelines would start each other for ever: {names}.", code="spec.circle")


def _flows(spec: PipelineSpec, reads: _Reads) -> Iterator[tuple[Dataset, Dataset]]:
    for source in reads[spec.name]:
        yield source, _target(spec)


def _uses(spec: PipelineSpec, reads: _Reads) -> Iterator[tuple[Dataset, Dataset]]:
    """The flows with the pipeline itself as a place on the way, and from the pipelines that it runs after."""
    pipeline = (_PIPELINE, spec.name)
    yield pipeline, _target(spec)
    for source in reads[spec.name]:
        yield source, pipeline
    for name in spec.after:
        yield (_PIPELINE, name), pipeline


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


def _target(spec: PipelineSpec) -> Dataset:
    return dataset(spec.destination.connection, str(spec.destination.table))


def _downstream(kind: str, name: str, flows: Sequence[tuple[Dataset, Dataset]]) -> tuple[str, ...]:
    """Name the pipelines that read what this one writes, or run after it, directly or not."""
    reached = reached_from((_PIPELINE, name), flows) if kind == "pipeline" else set()
    names = sorted(name for place, name in reached if place == _PIPELINE)
    return (f"downstream: {', '.join(names)}",) if names else ()


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


async def _all(records: IDocumentRecords, organization: str) -> list[StoredDocument]:
    found: list[StoredDocument] = []
    after: str | None = None
    while True:
        page = await records.page(organization, after=after, limit=200)
        found += page.items
        after = page.next_cursor
        if after is None:
            return found


def _records(unit: IUnitOfWork, kind: str) -> IDocumentRecords:
    return unit.pipelines if kind == "pipeline" else unit.connections
