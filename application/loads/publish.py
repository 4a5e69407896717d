"""How a read set that was streamed is judged: the rules over all of its rows, under the names that they land with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from domain.errors import ConversionError
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import PipelineSpec
from domain.ports.transformer import TransformPlan
from domain.quality.rules import Evidence, Judgement, Rule, StagedChecks, judge


@dataclass(frozen=True)
class Verdict:
    """What is asked of the staged rows, and what is said of the answers."""

    checks: StagedChecks
    judge: Callable[[Evidence], Judgement]


def verdict_of(spec: PipelineSpec, read_set: ReadSet, transform: TransformPlan, now: datetime) -> Verdict:
    """The rules of a pipeline over the whole of a read set, at a time."""
    rules = tuple(_landed(rule, transform) for rule in spec.quality)
    complete = _complete(spec, read_set, transform)

    def judged(evidence: Evidence) -> Judgement:
        counts = evidence.counts
        if not spec.on_error.allows(counts.failed, counts.read):
            raise ConversionError(f"{counts.failed} of {counts.read} rows did not convert, more than on_error allows.")
        return judge(rules, replace(evidence, now=now, complete=complete))

    return Verdict(StagedChecks.of(rules), judged)


def _complete(spec: PipelineSpec, read_set: ReadSet, transform: TransformPlan) -> Mapping[str, str]:
    """The time up to which the column of the cursor was read completely."""
    end = read_set.plan.end
    if spec.source.cursor is None or end is None or end.complete_as_of is None:
        return {}
    column = spec.source.cursor.column
    # A rule names it as the rows have it, or as the table does.
    return dict.fromkeys((column, transform.landing_name(column)), end.complete_as_of)


def _landed(rule: Rule, transform: TransformPlan) -> Rule:
    """A rule over the whole run with the names that its columns have at the destination."""
    if rule.is_row_rule:
        return rule
    reference = rule.reference
    if reference is not None:
        reference = replace(reference, column=transform.landing_name(reference.column))
    return replace(rule, columns=tuple(transform.landing_name(name) for name in rule.columns), reference=reference)
