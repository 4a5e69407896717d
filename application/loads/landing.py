"""Where a read set lands: the columns of its rows, in the types that the table has or gets."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from domain.errors import InvalidInputError, SchemaMismatchError
from domain.loads.read_set import ReadSet, SourcePlan
from domain.pipelines.spec import DeleteMissing, DestinationSpec, Mode, PipelineSpec, SchemaPolicy
from domain.ports.data_store import IDestination, Target
from domain.ports.transformer import ITransformer, TransformPlan
from domain.runs.run import RunRequest
from domain.stores.table import DELETED_AT, INTERNAL_PREFIX, LOADED_AT, RUN_ID, Column, TableSchema

_WANTED = ("json", "uuid")
_TRAVELLING = frozenset({LOADED_AT, RUN_ID, DELETED_AT})


@dataclass(frozen=True)
class LeftOut:
    """Columns, in lower case, that do not land: `replaced` by the run's own metadata, or `computed` by the table."""

    replaced: frozenset[str]
    computed: frozenset[str]

    @classmethod
    def of(cls, destination: DestinationSpec, existing: TableSchema | None) -> "LeftOut":
        """What a destination writes itself. Without metadata columns, an earlier hop's are columns like any other."""
        own = {LOADED_AT, RUN_ID} if destination.metadata_columns else set[str]()
        if destination.delete_missing is DeleteMissing.SOFT:
            own.add(DELETED_AT)
        computed = {column.name for column in existing.columns if column.is_computed} if existing else set[str]()
        if destination.normalizes:
            computed = {name.lower() for name in computed}
        return cls(frozenset(own), frozenset(computed))

    def kept(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """The columns that land."""
        return tuple(column for column in columns if not (self._replaces(column.name) or column.name in self.computed))

    def notes(self, columns: Sequence[Column]) -> tuple[str, ...]:
        """Say in words what is left out, of these columns."""
        replaced = [column.name for column in columns if self._replaces(column.name)]
        computed = [column.name for column in columns if column.name in self.computed]
        return (
            *([f"{', '.join(replaced)} of the source: replaced by this pipeline's own"] if replaced else []),
            *([f"{', '.join(computed)}: left out, as the table computes it"] if computed else []),
        )

    def check_key(self, key: Collection[str]) -> None:
        """Refuse to merge by what does not land.

        Raises:
            InvalidInputError: a column of the key is computed or replaced (`merge.key_computed`).
        """
        lost = [name for name in key if self._replaces(name) or name in self.computed]
        if lost:
            raise InvalidInputError(
                f"The key column {lost[0]} of the destination is written by the destination itself, so no row can be "
                "found by it; merge by a column that the rows bring.",
                code="merge.key_computed",
            )

    def _replaces(self, name: str) -> bool:
        return name.lower() in self.replaced


def retyped(
    existing: TableSchema, plan: TransformPlan, columns: Sequence[Column], key: Collection[str]
) -> tuple[TableSchema, bool]:
    """The table with the types that the rows have by themselves, and whether one with these takes its place.

    Types that rows never have by themselves, such as JSON for a text, stay as they are wanted. So does a table on which
    other things hang: its rows are exchanged, and values that do not fit are told by name.
    """
    named = dict(zip(plan.landing_names(c.name for c in columns), (c.type for c in columns), strict=True))
    found = []
    for column in existing.columns:
        kind = named.get(column.name) or named.get(column.name.lower() if plan.normalizes else column.name)
        is_wanted = column.type.startswith("native:") or (column.type in _WANTED and kind == "string")
        found.append(column if kind is None or is_wanted else replace(column, type=kind))
    if tuple(found) == existing.columns or not existing.may_be_rebuilt(key):
        return existing, False
    return replace(existing, columns=tuple(found)), True


def check_reserved(columns: Sequence[Column]) -> None:
    """Refuse names that Headrace gives to columns of its own while rows travel.

    Raises:
        InvalidInputError: there is one (`columns.reserved`).
    """
    for column in columns:
        name = column.name.lower()
        if name.startswith(INTERNAL_PREFIX) and name not in _TRAVELLING:
            raise InvalidInputError(
                f"The column {column.name} of the source has a name that belongs to Headrace; give it another one, or "
                "leave it out, in a query of the source.",
                code="columns.reserved",
            )


@dataclass(frozen=True)
class Prepared:
    """Where a read set lands, how its rows are transformed, the Python functions that take part, the columns that the
    table does not have yet, and in words those that do not land. `is_new` says that there is no table to land in, or
    that another takes its place.
    """

    target: Target
    transform: TransformPlan
    hooks: tuple[Mapping[str, str], ...] = ()
    added: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    is_new: bool = False


@dataclass(frozen=True)
class LandingPlanner:
    """Plans where read sets land."""

    transformer: ITransformer

    async def target(
        self, run_id: str, store: IDestination, spec: PipelineSpec, read_set: ReadSet, request: RunRequest
    ) -> Prepared:
        """Work out the landing columns: what the transforms give, in the types the destination has already.

        Raises:
            InvalidInputError: a transform or rule does not fit the source's columns.
        """
        wanted = spec.destination
        existing = await store.describe(wanted.table, with_bound=request.full_refresh)
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
            f"The table {spec.destination.table} has no column named {', '.join(new)}, and its schema is frozen: add "
            "it, drop it in a transform, or say schema: evolve.",
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
        replayed=spec.source.refused is not None,
    )
