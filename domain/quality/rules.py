"""Quality rules and the pure judgement over what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from domain.quality.measures import Counts
from domain.quality.profile import Profile, drift
from domain.rule_results import RuleResult
from domain.stores.table import TableName, check_identifier


class OnViolation(StrEnum):
    """What a violated rule does to its rows or its run."""

    FAIL = "fail"
    QUARANTINE = "quarantine"
    WARN = "warn"


ROW_RULES = frozenset({"not_null", "between", "accepted_values", "matches", "sql"})
RUN_RULES = frozenset(
    {
        *("unique", "duplicate_rate", "references", "row_count", "completeness", "null_rate", "freshness"),
        "distribution",
    }
)
_STAGED = frozenset({"unique", "duplicate_rate", "references"})


@dataclass(frozen=True)
class Reference:
    """A column of the rows, and the column of another table at the destination in which its values are found."""

    column: str
    table: TableName
    other: str

    @classmethod
    def parse(cls, column: str, text: str) -> "Reference":
        """Read `table.column` or `schema.table.column`.

        Raises:
            ValueError: another shape.
        """
        table, separator, other = text.rpartition(".")
        if not separator:
            raise ValueError("a reference is written as table.column")
        check_identifier(other)
        return cls(column, TableName.parse(table), other)


@dataclass(frozen=True)
class StagedChecks:
    """What is measured over the staged rows: duplicates over columns, and values that another table lacks."""

    duplicates: tuple[tuple[str, ...], ...] = ()
    references: tuple[Reference, ...] = ()

    @classmethod
    def of(cls, rules: Sequence["Rule"]) -> "StagedChecks":
        """Gather what rules need, each once."""
        return cls(
            tuple(dict.fromkeys(rule.columns for rule in rules if rule.kind in ("unique", "duplicate_rate"))),
            tuple(dict.fromkeys(rule.reference for rule in rules if rule.reference is not None)),
        )


@dataclass(frozen=True)
class Rule:
    """One rule of a pipeline; which of the fields matter depends on `kind`."""

    kind: str
    on_violation: OnViolation = OnViolation.FAIL
    column: str | None = None
    columns: tuple[str, ...] = ()
    minimum: Any = None
    maximum: Any = None
    values: tuple[Any, ...] = ()
    pattern: str | None = None
    expression: str | None = None
    expected: Any = None
    threshold: float | None = None
    reference: "Reference | None" = None
    max_age: timedelta | None = None

    @property
    def is_row_rule(self) -> bool:
        """Row rules are judged per batch, run rules when the read set is done."""
        return self.kind in ROW_RULES

    @property
    def needs_staging(self) -> bool:
        """Some rules are measured over the staged rows; `fail` of a run rule must be able to publish nothing."""
        return not self.is_row_rule and (self.kind in _STAGED or self.on_violation is OnViolation.FAIL)

    @property
    def patient(self) -> "Rule":
        """The same rule that keeps a row aside where it would fail the run."""
        is_failing = self.on_violation is OnViolation.FAIL
        return replace(self, on_violation=OnViolation.QUARANTINE) if is_failing else self

    @property
    def label(self) -> str:
        """A short name for reports, unique enough to find the rule in the file."""
        subject = self.column or ", ".join(self.columns) or self.expression or ""
        return f"{self.kind}({subject})" if subject else self.kind


@dataclass(frozen=True)
class Evidence:
    """Everything a publication is judged by, summed over the streams of the read set.

    `violations` are per row rule, `nulls` per column, `duplicates` per tuple of columns, `dangling` per reference;
    `newest` is the greatest time of a column, in ISO form, `complete` the time up to which it was read completely, and
    `now` the time of judging. `profiles` are per column, and
    `baseline` those of the run before.
    """

    counts: Counts
    violations: Mapping[str, int] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    duplicates: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    expected: Mapping[int, int] = field(default_factory=dict)
    dangling: Mapping[Reference, int] = field(default_factory=dict)
    newest: Mapping[str, str] = field(default_factory=dict)
    complete: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    baseline: Mapping[str, Profile] = field(default_factory=dict)
    now: datetime | None = None


@dataclass(frozen=True)
class Judgement:
    """The verdict over a read set."""

    results: tuple[RuleResult, ...]

    @property
    def rejected(self) -> tuple[RuleResult, ...]:
        """The results that forbid publishing."""
        return tuple(result for result in self.results if result.verdict == "fail")


def judge(rules: Sequence[Rule], evidence: Evidence) -> Judgement:
    """Judge every rule over the measures of a finished read set; rules keep their order."""
    return Judgement(tuple(_judge_one(index, rule, evidence) for index, rule in enumerate(rules)))


def _judge_one(index: int, rule: Rule, evidence: Evidence) -> RuleResult:
    counts = evidence.counts
    value: float | None = None
    threshold: float | None = rule.threshold
    if rule.is_row_rule:
        violations = evidence.violations.get(rule_key(index, rule), 0)
        checks = counts.read - counts.failed - counts.filtered
        return _result(rule, "row", checks, violations, float(violations), None)
    match rule.kind:
        case "unique":
            violations = evidence.duplicates.get(rule.columns, 0)
            value = float(violations)
        case "duplicate_rate":
            repeated = evidence.duplicates.get(rule.columns, 0)
            value = repeated / counts.used if counts.used else 0.0
            threshold = float(rule.maximum)
            violations = repeated if value > threshold else 0
        case "references":
            violations = evidence.dangling.get(rule.reference, 0) if rule.reference else 0
            value = float(violations)
        case "freshness":
            value = _age_seconds(evidence, rule.column or "")
            threshold = rule.max_age.total_seconds() if rule.max_age else 0.0
            violations = int(value is not None and value > threshold)
        case "row_count":
            value = float(counts.used)
            below = rule.minimum is not None and counts.used < rule.minimum
            above = rule.maximum is not None and counts.used > rule.maximum
            violations = int(below or above)
            threshold = float(rule.minimum if rule.minimum is not None else rule.maximum)
        case "completeness":
            expected = evidence.expected.get(index, 0)
            value = counts.used / expected if expected else 1.0
            violations = 0 if value >= (threshold or 0.0) else expected - counts.used
        case "null_rate":
            nulls = evidence.nulls.get(rule.column or "", 0)
            value = nulls / counts.used if counts.used else 0.0
            threshold = float(rule.maximum)
            violations = nulls if value > threshold else 0
        case "distribution":
            value = _drift(evidence, rule.column or "")
            threshold = float(rule.maximum)
            violations = int(value is not None and value > threshold)
        case _:
            raise ValueError(f"unknown rule {rule.kind}")
    return _result(rule, "run", max(1, counts.used), violations, value, threshold)


def _drift(evidence: Evidence, column: str) -> float | None:
    """How far a column is from what it was in the run before; None when there was none."""
    now, before = evidence.profiles.get(column), evidence.baseline.get(column)
    return drift(now, before) if now is not None and before is not None else None


def _age_seconds(evidence: Evidence, column: str) -> float | None:
    """How old the newest value of a column is; None when there was no row. Where a cursor found no later row, nothing
    is older than the time up to which it looked.
    """
    newest = evidence.newest.get(column) or evidence.complete.get(column)
    if newest is None or evidence.now is None:
        return None
    moment = datetime.fromisoformat(newest)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((evidence.now - aware).total_seconds(), 3)


def _result(
    rule: Rule, scope: str, checks: int, violations: int, value: float | None, threshold: float | None
) -> RuleResult:
    verdict = "pass"
    if violations:
        verdict = "quarantined" if rule.on_violation is OnViolation.QUARANTINE else rule.on_violation.value
    return RuleResult(
        rule=rule.label,
        scope=scope,
        on_violation=rule.on_violation.value,
        verdict=verdict,
        checks=checks,
        violations=violations,
        value=value,
        threshold=threshold,
    )


def rule_key(index: int, rule: Rule) -> str:
    """The key under which a stream's measures keep a row rule's violations."""
    return f"{index}:{rule.kind}"
