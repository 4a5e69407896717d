"""What a run reads, and in which parts: worked out once from the spec, the ends and the lane, and stored."""

import hashlib
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from application.loads.ends import Ends
from application.loads.guesses import settled, unproved
from application.loads.patience import Patience
from domain.errors import InvalidInputError, NotFoundError
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import OF_CHOSEN_PARAMETERS, ReadSet, SourcePlan
from domain.pipelines.plan import Publishing, choose_publishing, merges_in_streams
from domain.pipelines.spec import Mode, PipelineSpec, Publish, SourceSpec
from domain.ports.data_store import IDestination, ISource
from domain.quality.rules import Rule
from domain.runs.lane import Lane
from domain.runs.run import RunRequest


@dataclass(frozen=True)
class ReadPlanner:
    """Plans reads. `default_batch_rows` holds where a pipeline says nothing; None leaves it to the destination."""

    patience: Patience
    default_batch_rows: int | None
    max_batch_rows: int
    default_batch_bytes: int
    max_batch_bytes: int = 1024**3
    max_columns: int = 5_000

    @staticmethod
    async def with_key(store: ISource, spec: PipelineSpec) -> PipelineSpec:
        """Give a `table:` source in a store its primary key where it names no key.

        Raises:
            NotFoundError: there is no such table (`table.not_found`).
            InvalidInputError: a cursor without any key (`cursor.key_missing`).
        """
        source = spec.source
        if source.table is not None and not source.key:
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
                f"The cursor {source.cursor.column} needs a key, and the table has no primary key that covers all of "
                "its rows (one of a table with inherited children does not): name one in source.key.",
                code="cursor.key_missing",
            )
        return replace(spec, source=source)

    async def planned(self, planning: Awaitable[SourcePlan]) -> SourcePlan:
        """Wait for the plan of a source, as long as may be.

        Raises:
            InvalidInputError: it has too many columns (`source.too_many_columns`).
        """
        plan = await self.patience.answer(planning)
        if len(plan.columns) > self.max_columns:
            raise InvalidInputError(
                f"The source has {len(plan.columns):,} columns, and {self.max_columns:,} are the most: select those "
                "that are needed, or raise HEADRACE_LIMITS__COLUMNS.",
                code="source.too_many_columns",
            )
        return plan

    async def read_set(
        self, read_set_id: str, lane: Lane, ends: Ends, spec: PipelineSpec, request: RunRequest, state: LaneState
    ) -> ReadSet:
        """Plan the read of a run that starts at the lane's watermark."""
        lo = state.watermark if spec.source.cursor is not None and not request.full_refresh else None
        source, note = spec.source, None
        if not merges_in_streams(spec):
            source = replace(source, partitions=None)
            note = "one stream: the partition column is not an untouched part of the merge key"
        before = state.memory.latest_end if state.memory.fingerprint == spec.fingerprint else None
        plan = await self.planned(ends.source.plan(source, lo=lo, limit=request.limit, before=before))
        if note is not None:
            plan = replace(plan, note=note)
        plan = await self.settled(ends, spec, plan, request)
        publishing = await self.publishing(ends, spec, plan, request)
        shadow = None
        if publishing.publish is Publish.RUN:
            digest = hashlib.sha256(f"{lane}/{read_set_id}".encode()).hexdigest()[:16]
            shadow = f"_headrace_stage_{digest}"
        return ReadSet(
            id=read_set_id if spec.has_own_parameters else f"{read_set_id}{OF_CHOSEN_PARAMETERS}",
            fingerprint=spec.fingerprint,
            plan=plan,
            batch_rows=self.batch_rows(spec, ends.destination.batch_rows),
            batch_bytes=self.batch_bytes(spec),
            shadow=shadow,
            expected=await self._expected(ends.source, spec, plan),
            baseline=state.memory.latest_profiles,
            generation=state.generation,
            full_refresh=request.full_refresh,
        )

    @staticmethod
    async def publishing(ends: Ends, spec: PipelineSpec, plan: SourcePlan, request: RunRequest) -> Publishing:
        """Choose how a planned read publishes."""
        unique = None
        if spec.destination.mode is Mode.MERGE:
            ends.check_merges()
            existing = await ends.destination.describe(spec.destination.table)
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

    @staticmethod
    async def settled(ends: Ends, spec: PipelineSpec, plan: SourcePlan, request: RunRequest) -> SourcePlan:
        """Let guesses give way to the types of the table that the rows land in."""
        if not plan.is_text or request.full_refresh:
            return plan
        existing = await ends.destination.describe(spec.destination.table)
        return settled(spec, plan, existing) if existing is not None else plan

    def batch_rows(self, spec: PipelineSpec, suiting: int = IDestination.batch_rows) -> int:
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

    async def _expected(self, store: ISource, spec: PipelineSpec, plan: SourcePlan) -> Mapping[str, int] | None:
        """Measure what `completeness` compares with, once, when the read is planned."""
        expected: dict[str, int] = {}
        for index, rule in enumerate(spec.quality):
            if rule.kind == "completeness":
                expected[str(index)] = await self._expected_of(store, spec, plan, rule)
        return expected or None

    async def _expected_of(self, store: ISource, spec: PipelineSpec, plan: SourcePlan, rule: Rule) -> int:
        if isinstance(rule.expected, int):
            return rule.expected
        if rule.expected == "source_count":
            return await self.patience.answer(store.count(spec.source, plan))
        query = SourceSpec(query=str(rule.expected), parameters=spec.source.parameters)
        async with aclosing(self.patience.each(store.read(query, batch_rows=1))) as batches:
            async for batch in batches:
                return _single_number(batch, rule)
        raise _not_a_number(rule)


def refuse_part(spec: PipelineSpec, request: RunRequest) -> None:
    """Refuse a run of a part where what a run does not read counts as missing.

    Raises:
        InvalidInputError: it has a limit (`run.limit_and_delete_missing`), or parameters other than the document's
            (`run.parameters_and_delete_missing`).
    """
    if spec.destination.delete_missing is None:
        return
    if request.limit is not None:
        raise InvalidInputError(
            "A run with --limit reads a part only, so delete_missing would take the rest for missing.",
            code="run.limit_and_delete_missing",
        )
    if not spec.has_own_parameters:
        raise InvalidInputError(
            "A run with other parameters than the document's may read a part only, so delete_missing would take the "
            "rest for missing.",
            code="run.parameters_and_delete_missing",
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
