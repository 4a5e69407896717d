"""Runs a document's own tests: transforms and row rules over the given rows, without any store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from application.loads.landing import landing_key
from application.plain_rows import rows_of
from domain.errors import PlatformError
from domain.pipelines.spec import PipelineSpec
from domain.pipelines.spec_test import SpecTest, as_text, differences
from domain.ports.transformer import ITransformer, TransformPlan
from domain.quality.rules import OnViolation
from domain.stores.table import INTERNAL_PREFIX, Column


@dataclass(frozen=True)
class TestOutcome:
    """What became of one test; without problems it passed."""

    __test__ = False

    pipeline: str
    test: str
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """The test found what it expects."""
        return not self.problems


@dataclass(frozen=True)
class SpecTester:
    """Runs the `tests:` of pipelines. A row that a rule refuses is kept aside, whatever the rule does to a run."""

    transformer: ITransformer

    async def run(self, specs: Sequence[PipelineSpec]) -> list[TestOutcome]:
        """Run every test of every pipeline, in their order."""
        return [
            TestOutcome(spec.name, test.name or str(number), tuple(await self._problems(spec, test)))
            for spec in specs
            for number, test in enumerate(spec.tests, start=1)
        ]

    async def _problems(self, spec: PipelineSpec, test: SpecTest) -> list[str]:
        try:
            landed, refused = await self._applied(spec, test)
        except PlatformError as error:
            return [f"{error.message} [{error.code}]"]
        problems = []
        if test.expect is not None:
            problems += differences(test.expect, landed, "expect")
        if test.quarantined is not None or refused:
            problems += differences(test.quarantined or (), refused, "quarantined")
        return problems

    async def _applied(self, spec: PipelineSpec, test: SpecTest) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        rules = tuple(
            replace(rule, on_violation=OnViolation.QUARANTINE) if rule.on_violation is OnViolation.FAIL else rule
            for rule in spec.quality
            if rule.is_row_rule
        )
        plan = TransformPlan(
            source=tuple(Column(name, kind) for name, kind in test.columns),
            steps=spec.transform,
            rules=rules,
            source_is_text=True,
            normalizes=spec.destination.normalizes,
            deleted_when=spec.destination.deleted_when,
        )
        async with self.transformer.prepare(plan) as transform:
            plan = replace(plan, key=landing_key(spec, transform.columns))
        names = [column.name for column in plan.source]
        given = self.transformer.text_batch(names, [[as_text(row.get(name)) for name in names] for row in test.given])
        async with self.transformer.prepare(plan) as transform:
            judged = await transform.apply(given)
        landed = [row for row in rows_of(judged.accepted) if not row.get("_headrace_deleted")]
        visible = [{name: v for name, v in row.items() if not name.startswith(INTERNAL_PREFIX)} for row in landed]
        return visible, [json.loads(row["record"]) for row in rows_of(judged.refused)]
