"""What a run reads and where it lands, worked out once from the spec, the stores and the lane."""

import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from application.connections.open_stores import OpenStores
from application.pipelines.guesses import settled, unproved
from application.pipelines.landing import LeftOut, check_reserved, retyped
from application.pipelines.patience import Patience
from domain.errors import InvalidInputError, NotFoundError, SchemaMismatchError
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import Lane, ReadSet, SourcePlan
from domain.loads.way import Facts, Route, choose_way
from domain.pipelines.plan import Publishing, choose_publishing, merges_in_streams
from domain.pipelines.spec import Mode, PipelineSpec, Publish, SchemaPolicy, SourceSpec
from domain.ports.data_store import IDataStore, Target
from domain.ports.transformer import ITransformer, TransformPlan
from domain.quality.rules import Rule
from domain.runs.run import RunRequest
from domain.stores.table import Column, TableSchema


@dataclass(frozen=True)
class Prepared:
    """Where a read set lands, how its rows are transformed, the Python functions that take part, the columns that the
    table does not have yet, and in words those that do not land. `is_new` says that there is no table to land in, or that
    another takes its place.
    """

    target: Target
    transform: TransformPlan
    hooks: tuple[Mapping[str, str], ...] = ()
    added: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    is_new: bool = False


@dataclass(frozen=True)
class RunPreparer:
    """Plans reads and targets. `default_batch_rows` holds where a pipeline says nothing; None leaves it to the store."""

    stores: OpenStores
    transformer: ITransformer
    patience: Patience
    default_batch_rows: int | None
    max_batch_rows: int
    default_batch_bytes: int
    max_batch_bytes: int = 1024**3
    max_columns: int = 5_000

    async def with_key(self, organization: str, spec: PipelineSpec) -> PipelineSpec:
        """Give a `table:` source without a key its primary key.

        Raises:
            NotFoundError: there is no such table (`table.not_found`).
            InvalidInputError: a cursor without any key (`cursor.key_missing`).
        """
        source = spec.source
        if source.table is not None and not source.key:
            store = await self.source_store(organization, source)
            described = await store.describe(source.table)
            if described is None and source.cursor is not None:
                raise NotFoundError(
                    f"{source.table} does not exist: the source has no such table or view.",
                    code="table.not_found",
                )
            if described is not None and described.primary_key:
                source = replace(source, key=described.primary_key)
        if source.cursor is not None and not source.key:
            raise InvalidInputError(
                f"The cursor {source.cursor.column} needs a key, and the table has no primary key that covers all of its rows "
                "(one of a table with inherited children does not): name one in source.key.",
                code="cursor.key_missing",
            )
        return replace(spec, source=source)

    async def source_store(self, organization: str, source: SourceSpec) -> IDataStore:
        """Open the source's store."""
        return await self.stores.get(organization, await self.stores.spec_of(organization, source.connection))

    async def planned(self, planning: Awaitable[SourcePlan]) -> SourcePlan:
        """Wait for the plan of a source, as long as may be.

        Raises:
            InvalidInputError: it has too many columns (`source.too_many_columns`).
        """
        plan = await self.patience.answer(planning)
        if len(plan.columns) > self.max_columns:
            raise InvalidInputError(
                f"The source has {len(plan.columns):,} columns, and {self.max_columns:,} are the most: select those that are "
                "needed, or raise HEADRACE_LIMITS__COLUMNS.",
                code="source.too_many_columns",
            )
        return plan

    async def read_set(
        self, read_set_id: str, lane: Lane, spec: PipelineSpec, request: RunRequest, state: LaneState
    ) -> ReadSet:
        """Plan the read of a run that starts at the lane's watermark."""
        store = await self.source_store(lane.organization, spec.source)
        if request.limit is not None and spec.destination.delete_missing is not None:
            raise InvalidInputError(
                "A run with --limit reads a part only, so delete_missing would take the rest for missing.",
                code="run.limit_and_delete_missing",
            )
        lo = state.watermark if spec.source.cursor is not None and not request.full_refresh else None
        source, note = spec.source, None
        if not merges_in_streams(spec):
            source = replace(source, partitions=None)
            note = "one stream: the partition column is not an untouched part of the merge key"
        before = state.end if state.stats.get("fingerprint") == spec.fingerprint else None
        plan = await self.planned(store.plan(source, lo=lo, limit=request.limit, before=before))
        if note is not None:
            plan = replace(plan, note=note)
        plan = await self.settled(lane.organization, spec, plan, request)
        publishing = await self.publishing(lane.organization, spec, plan, request)
        shadow = None
        if publishing.publish is Publish.RUN:
            digest = hashlib.sha256(f"{lane}/{read_set_id}".encode()).hexdigest()[:16]
            shadow = f"_headrace_stage_{digest}"
        return ReadSet(
            id=read_set_id,
            fingerprint=spec.fingerprint,
            plan=plan,
            batch_rows=self.batch_rows(spec, await self._suiting(lane.organization, spec)),
            batch_bytes=self.batch_bytes(spec),
            shadow=shadow,
            expected=await self._expected(store, spec, plan),
            baseline=state.profiles,
            generation=state.generation,
        )

    async def publishing(
        self, organization: str, spec: PipelineSpec, plan: SourcePlan, request: RunRequest
    ) -> Publishing:
        """Choose how a planned read publishes."""
        unique = None
        if spec.destination.mode is Mode.MERGE:
            connection = await self.stores.spec_of(organization, spec.destination.connection)
            existing = await (await self.stores.get(organization, connection)).describe(spec.destination.table)
            # What steps make of the columns is not known yet.
            written = None if spec.transform else {name.lower() for name, _ in plan.columns}
            unique = existing.unique_besides(spec.destination.key, written) if existing else None
        return choose_publishing(
            spec,
            ordered=plan.ordered,
            full_refresh=request.full_refresh,
            unproved=unproved(plan),
            untrusted=plan.untrusted,
            unique=unique,
        )

    async def settled(self, organization: str, spec: PipelineSpec, plan: SourcePlan, request: RunRequest) -> SourcePlan:
        """Let guesses give way to the types of the table that the rows land in."""
        if not plan.is_text or request.full_refresh:
            return plan
        connection = await self.stores.spec_of(organization, spec.destination.connection)
        existing = await (await self.stores.get(organization, connection)).describe(spec.destination.table)
        return settled(spec, plan, existing) if existing is not None else plan

    async def _suiting(self, organization: str, spec: PipelineSpec) -> int:
        connection = await self.stores.spec_of(organization, spec.destination.connection)
        return (await self.stores.get(organization, connection)).batch_rows

    def batch_rows(self, spec: PipelineSpec, suiting: int = IDataStore.batch_rows) -> int:
        """The rows per batch, of which `suiting` would suit the destination.

        Raises:
            InvalidInputError: more than MAX_BATCH_SIZE.
        """
        rows = spec.run.batch_rows or self.default_batch_rows or min(suiting, self.max_batch_rows)
        if rows > self.max_batch_rows:
            raise InvalidInputError(
                f"run.batch_rows is above MAX_BATCH_SIZE, which is {self.max_batch_rows}.", code="spec.batch_rows"
            )
        return rows

    def batch_bytes(self, spec: PipelineSpec) -> int:
        """The bytes that a batch may have.

        Raises:
            InvalidInputError: more than those of a run together.
        """
        size = spec.run.batch_bytes or min(self.default_batch_bytes, self.max_batch_bytes)
        if size > self.max_batch_bytes:
            raise InvalidInputError(
                f"run.batch_bytes is above HEADRACE_RUN__BATCHES_BYTES, which is {self.max_batch_bytes:,} bytes.",
                code="spec.batch_bytes",
            )
        return size

    async def target(
        self, run_id: str, organization: str, spec: PipelineSpec, read_set: ReadSet, request: RunRequest
    ) -> Prepared:
        """Work out the landing columns: what the transforms give, in the types the destination has already.

        Raises:
            InvalidInputError: a transform or rule does not fit the source's columns.
        """
        destination = await self.stores.get(
            organization, await self.stores.spec_of(organization, spec.destination.connection)
        )
        wanted = spec.destination
        existing = await destination.describe(wanted.table, with_bound=request.full_refresh)
        rebuilds = False
        if existing is not None and request.full_refresh:
            natural = transform_plan(spec, read_set.plan, ())
            async with self.transformer.prepare(replace(natural, key=())) as transform:
                existing, rebuilds = retyped(existing, natural, transform.columns, landing_key(spec, transform.columns))
        left_out = LeftOut.of(wanted, existing)
        plan = transform_plan(spec, read_set.plan, left_out.kept(existing.columns) if existing else ())
        async with self.transformer.prepare(replace(plan, key=())) as transform:
            columns, hooks = tuple(transform.columns), tuple(transform.hooks)
        plan = replace(plan, key=landing_key(spec, columns))
        left_out.check_key(plan.key)
        notes, columns = left_out.notes(columns), left_out.kept(columns)
        replaces = wanted.mode is Mode.REPLACE or request.full_refresh
        existing = None if replaces else existing
        columns, discarded = fitting(spec, columns, existing)
        target = Target(
            table=wanted.table,
            mode=wanted.mode,
            shadow=read_set.shadow,
            columns=columns,
            run_id=run_id,
            metadata_columns=wanted.metadata_columns,
            replaces=replaces,
            key=plan.key,
            deletes=wanted.deleted_when is not None,
            delete_missing=wanted.delete_missing,
            max_deleted_share=wanted.max_deleted_share,
            discarded=discarded,
            newest_by=self._newest_by(plan, spec, columns),
            source_key=spec.source.key if wanted.mode is Mode.MERGE and spec.source.refused is None else (),
            rebuilds=rebuilds,
        )
        added = tuple(column.name for column in columns if existing is not None and not existing.has(column.name))
        return Prepared(target, plan, hooks, added, notes, is_new=existing is None)

    @staticmethod
    def _newest_by(plan: TransformPlan, spec: PipelineSpec, columns: Sequence[Column]) -> str | None:
        refused = spec.source.refused
        if refused is None or refused.cursor is None:
            return None
        name = plan.landing_name(refused.cursor)
        return name if any(column.name == name for column in columns) else None

    async def route(
        self, organization: str, spec: PipelineSpec, plan: SourcePlan, target: Target, transform: TransformPlan
    ) -> Route:
        """Choose the way that rows take from source to destination."""
        source = await self.stores.spec_of(organization, spec.source.connection)
        destination = await self.stores.spec_of(organization, spec.destination.connection)
        facts = Facts(
            keeps_values=transform.keeps_values and not target.discarded and spec.source.refused is None,
            only_converts=transform.only_converts and not target.discarded and spec.source.refused is None,
            merges=target.merges,
            seen=await self.transformer.looks_at(transform),
            width=len(transform.source),
            is_limited=plan.limit is not None,
            ordered=plan.ordered,
            is_split=len(plan.streams) > 1,
            is_one_store=source == destination,
        )
        route = choose_way(facts)
        if not facts.may_pass:
            return route
        reading_store = await self.stores.get(organization, source)
        landing_store = await self.stores.get(organization, destination)
        landing_names = {column.name for column in target.columns}
        reading = await reading_store.wire(spec.source)
        if reading is not None and facts.only_converts:
            converted = self.transformer.conversions(transform).columns
            reading = replace(reading, types={column.name: column.type for column in converted})
        elif reading is not None:
            reading = replace(reading, types={n: kind for n, kind in reading.types.items() if n in landing_names})
        return choose_way(
            replace(
                facts,
                may_run_inside=source == destination and await reading_store.may_run_inside(spec.source),
                reading=reading,
                landing=await landing_store.landing_wire(target.table, target.columns),
            )
        )

    async def _expected(self, store: IDataStore, spec: PipelineSpec, plan: SourcePlan) -> Mapping[str, int] | None:
        """Measure what `completeness` compares with, once, when the read is planned."""
        expected: dict[str, int] = {}
        for index, rule in enumerate(spec.quality):
            if rule.kind == "completeness":
                expected[str(index)] = await self._expected_of(store, spec, plan, rule)
        return expected or None

    async def _expected_of(self, store: IDataStore, spec: PipelineSpec, plan: SourcePlan, rule: Rule) -> int:
        if isinstance(rule.expected, int):
            return rule.expected
        if rule.expected == "source_count":
            return await self.patience.answer(store.count(spec.source, plan))
        query = SourceSpec(query=str(rule.expected), parameters=spec.source.parameters)
        async with aclosing(self.patience.each(store.read(query, batch_rows=1))) as batches:
            async for batch in batches:
                return _single_number(batch, rule)
        raise _not_a_number(rule)


def landing_key(spec: PipelineSpec, columns: Sequence[Column]) -> tuple[str, ...]:
    """The merge key in the destination's names; empty in other modes.

    Raises:
        InvalidInputError: a column of it is not among the rows' (`merge.key_missing`).
    """
    if spec.destination.mode is not Mode.MERGE:
        return ()
    by_name = {column.name: column.name for column in columns}
    if spec.destination.normalizes:
        by_name |= {column.name.lower(): column.name for column in columns}
    found = []
    for name in spec.destination.key:
        landing = by_name.get(name) or by_name.get(name.lower() if spec.destination.normalizes else name)
        if landing is None:
            raise InvalidInputError(
                f"The key column {name} of the destination is not there after the transforms.", code="merge.key_missing"
            )
        found.append(landing)
    return tuple(found)


def fitting(
    spec: PipelineSpec, columns: tuple[Column, ...], existing: TableSchema | None
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns that land in a table, and the names of those that are left out, as `schema` says.

    Raises:
        SchemaMismatchError: the schema is frozen and the table lacks a column (`schema.frozen`).
    """
    policy = spec.destination.schema
    new = tuple(column.name for column in columns if existing is not None and not existing.has(column.name))
    if not new or policy is SchemaPolicy.EVOLVE:
        return columns, ()
    if policy is SchemaPolicy.FREEZE:
        raise SchemaMismatchError(
            f"The table {spec.destination.table} has no column named {', '.join(new)}, and its schema is frozen: add it, "
            "drop it in a transform, or say schema: evolve.",
            code="schema.frozen",
        )
    return tuple(column for column in columns if column.name not in new), new


def transform_plan(spec: PipelineSpec, plan: SourcePlan, target: tuple[Column, ...]) -> TransformPlan:
    """Describe the transforms of a planned read.

    Raises:
        InvalidInputError: a column has a name of Headrace's own (`columns.reserved`).
    """
    source = tuple(Column(name, kind) for name, kind in plan.columns)
    check_reserved(source)
    return TransformPlan(
        source=source,
        steps=spec.transform,
        rules=spec.quality,
        target=target,
        source_is_text=plan.is_text,
        guessed=plan.guessed,
        normalizes=spec.destination.normalizes,
        deleted_when=spec.destination.deleted_when,
    )


def _single_number(batch: object, rule: Rule) -> int:
    to_pylist = getattr(batch, "to_pylist", None)
    is_small = getattr(batch, "nbytes", 0) <= _MOST_OF_A_NUMBER  # A list may have millions of items.
    rows = to_pylist() if callable(to_pylist) and is_small else []
    values = list(rows[0].values()) if rows else []
    if len(values) != 1 or not isinstance(values[0], int):
        raise _not_a_number(rule)
    return values[0]


_MOST_OF_A_NUMBER = 1_000
"""Bytes."""


def _not_a_number(rule: Rule) -> InvalidInputError:
    return InvalidInputError(
        f"The query of {rule.label}'s expected must give one whole number.", code="quality.expected"
    )
