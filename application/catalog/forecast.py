"""What a plan foretells of each pipeline: its way, its columns with their types, and what to expect of a run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from application.catalog.documents import Catalog, Change, PutDocument, how_it_publishes
from application.connections.open_stores import OpenStores
from application.loads.ends import Ends, connections_of, open_ends
from application.loads.landing import LandingPlanner, Prepared
from application.loads.patience import Patience
from application.loads.plan_read import ReadPlanner
from application.loads.route import route_of
from domain.errors import PlatformError
from domain.identity.principal import Principal
from domain.identity.scope import Scope
from domain.loads.read_set import ReadSet, SourcePlan
from domain.pipelines.plan import ColumnForecast, Publishing, judge_column
from domain.pipelines.spec import DEFAULT_CONNECTION, PipelineSpec, Publish
from domain.ports.data_store import IDestination, ISource
from domain.ports.records.unit_of_work import IRecords
from domain.runs.run import Run, RunRequest, RunState
from domain.runs.work import WorkKind
from domain.stores.connection import ConnectionSpec

# What a plan tells of columns stands in memory until the last pipeline is looked at.
_MOST_COLUMNS = 100_000


@dataclass(frozen=True)
class PlanForecaster:
    """Plans documents as the catalog does, and asks the stores what a run would do; nothing is stored or written."""

    catalog: Catalog
    records: IRecords
    stores: OpenStores
    reads: ReadPlanner
    landings: LandingPlanner
    patience: Patience

    async def plan(self, principal: Principal, commands: Sequence[PutDocument], *, prune: bool) -> list[Change]:
        """Say what applying a set of documents would change, and how its pipelines would then run.

        Only what is stored is opened: a pipeline that names a connection which is new or changed in the set is told
        about as far as the documents go.

        Raises:
            InvalidInputError, PermissionDeniedError: as `Catalog.plan`.
        """
        changes = await self.catalog.plan(principal, commands, prune=prune)
        bodies = {(command.kind, command.name): command.body for command in commands}
        pending = {change.name for change in changes if change.kind == "connection" and change.action != "keep"}
        found, told = list[Change](), 0
        for change in changes:
            if change.kind == "pipeline" and change.action != "delete":
                body = bodies[change.kind, change.name]
                waits_for = sorted(PipelineSpec.from_document(body).connections & pending)
                change = (
                    await self._before_applied(principal.organization, change, body, waits_for)
                    if waits_for
                    else await self._foretold(principal.organization, change, body, self.stores)
                )
            told += len(change.columns)
            if told > _MOST_COLUMNS:
                left_out = (
                    f"columns: left out, as the plan has more than {_MOST_COLUMNS:,} of them; plan fewer documents"
                )
                change = replace(change, columns=(), notes=(*change.notes, left_out))
            found.append(change)
        return found

    async def plan_own(
        self,
        principal: Principal,
        commands: Sequence[PutDocument],
        *,
        prune: bool,
        standing_in: Mapping[str, ISource] | None = None,
        only: Collection[str] | None = None,
    ) -> list[Change]:
        """As `plan`, for the owner of the documents in a process of their own: the connections are opened as they are
        given, and closed again. `standing_in` are stores to look at in the place of connections that another process
        holds; `only` names the pipelines to look at stores for.
        """
        changes = await self.catalog.plan(principal, commands, prune=prune)
        bodies = {(command.kind, command.name): command.body for command in commands}
        beside = {
            name: ConnectionSpec.from_document(body) for (kind, name), body in bodies.items() if kind == "connection"
        }
        async with self.stores.beside(beside, standing_in or {}) as stores:
            return [
                await self._foretold(principal.organization, change, bodies[change.kind, change.name], stores)
                if change.kind == "pipeline" and change.action != "delete" and (only is None or change.name in only)
                else change
                for change in changes
            ]

    async def tables_in(
        self, principal: Principal, specs: Collection[PipelineSpec], kind: str, *, but: Collection[str]
    ) -> dict[str, list[str]]:
        """The tables that pipelines read and write in stores of a kind, by connection; those `but` these are stored.

        Raises:
            NotFoundError: there is no such connection.
        """
        found: dict[str, list[str]] = {}
        for name in sorted({name for spec in specs for name in spec.connections} - set(but)):
            spec = await self.stores.spec_of(principal.organization, name)
            default = self.catalog.default_store if name == DEFAULT_CONNECTION else None
            if (default or spec).kind == kind:
                found[name] = sorted(await self._tables(name, specs))
        return found

    async def _tables(self, connection: str, specs: Collection[PipelineSpec]) -> set[str]:
        names = {str(spec.destination.table) for spec in specs if spec.destination.connection == connection}
        for spec in specs:
            if spec.source.connection != connection:
                continue
            if spec.source.table is not None:
                names.add(str(spec.source.table))
            if spec.source.query is not None:
                names |= await self.catalog.guard.relations(spec.source.query)
        return names

    async def _before_applied(
        self, organization: str, change: Change, body: Mapping[str, object], waits_for: Sequence[str]
    ) -> Change:
        spec = PipelineSpec.from_document(body)
        published = how_it_publishes(spec) if change.action == "keep" else []
        one = len(waits_for) == 1
        later = (
            f"way, types and columns: after the connection{'' if one else 's'} {' and '.join(waits_for)} "
            f"{'is' if one else 'are'} applied"
        )
        notes = (*published, *change.notes, *await self._history(organization, spec.name), later)
        return replace(change, notes=notes)

    async def _foretold(
        self, organization: str, change: Change, body: Mapping[str, object], stores: OpenStores
    ) -> Change:
        spec = PipelineSpec.from_document(body)
        published = how_it_publishes(spec) if change.action == "keep" else []
        notes = [*published, *change.notes, *await self._history(organization, spec.name)]
        by_document = how_it_publishes(spec)
        columns: tuple[ColumnForecast, ...] = ()
        try:
            async with self.patience.within():
                ends = await open_ends(stores, organization, await stores.specs_of(organization, connections_of(spec)))
                spec = await self.reads.with_key(ends.source, spec)
                plan = await self.reads.planned(ends.source.plan(spec.source, lo=None, limit=None, waits=False))
                plan = await self.reads.settled(ends, spec, plan, RunRequest())
                publishing = await self.reads.publishing(ends, spec, plan, RunRequest())
                told = how_it_publishes(spec, publishing)
                notes = [dict(zip(by_document, told, strict=True)).get(note, note) for note in notes]
                prepared = await self._prepared(ends, spec, plan, publishing)
                route = await route_of(self.landings.transformer, ends, spec, plan, prepared)
                columns = _columns(plan, prepared, ends.destination)
                notes.append(f"way: {route.way.value}, because {route.reason}")
                notes += [f"columns: {note}" for note in prepared.left_out]
                notes += [f"warning: {warning}" for warning in plan.warnings]
                notes += await _warnings(ends.source, spec, plan)
        except PlatformError as error:
            notes.append(f"way: not known by now: {error.message} [{error.code}]")
        return replace(change, notes=tuple(notes), columns=columns)

    async def _prepared(self, ends: Ends, spec: PipelineSpec, plan: SourcePlan, publishing: Publishing) -> Prepared:
        shadow = "_headrace_stage" if publishing.publish is Publish.RUN else None
        planned = ReadSet("", spec.fingerprint, plan, self.reads.batch_rows(spec), shadow)
        return await self.landings.target("", ends.destination, spec, planned, RunRequest())

    async def _history(self, organization: str, name: str) -> list[str]:
        work = WorkKind.PIPELINE.named(name)
        async with self.records.read(Scope(organization)) as unit:
            page = await unit.runs.page(organization, work=work, state=RunState.SUCCEEDED, after=None, limit=1)
        runs: Sequence[Run] = page.items
        report = runs[0].report if runs else None
        if report is None or not report.rows_per_second:
            return ["estimate: none, as no run has been finished"]
        rows, seconds = report.counts.read, report.seconds
        return [f"estimate: {rows:,} rows in {seconds:g} s, as in the last finished run"]


def _columns(plan: SourcePlan, prepared: Prepared, landing: IDestination) -> tuple[ColumnForecast, ...]:
    given = dict(plan.columns)
    by_landing = dict(zip(prepared.transform.landing_names(given), given.values(), strict=True))
    there = {column.name: column.type for column in prepared.transform.target}
    return tuple(
        judge_column(
            column.name,
            source=by_landing.get(column.name),
            landing=there.get(column.name, column.type),
            native=landing.spell(there.get(column.name, column.type)),
            is_text=plan.is_text,
        )
        for column in prepared.target.columns
    )


async def _warnings(source: ISource, spec: PipelineSpec, plan: SourcePlan) -> list[str]:
    warnings = [f"note: {plan.note}"] if plan.note else []
    warnings += [f"cursor: {sentence}" for sentence in (plan.end.sentences if plan.end is not None else ())]
    wire = await source.wire(spec.source) if plan.ordered and plan.order else None
    if wire is not None and not wire.is_seekable:
        warnings.append(
            f"warning: no index of the source is in the order of ({', '.join(plan.order)}), so each run sorts what it "
            "reads"
        )
    return warnings
