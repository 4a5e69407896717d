"""What becomes of rows that did not convert or that a rule refuses, once the query has looked at all of them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.quality.rules import OnViolation, Rule, rule_key
from domain.stores.table import ORDINAL
from infrastructure.transforms.refused import Refusal, rejected
from infrastructure.transforms.rules import verdict_name
from infrastructure.transforms.stages import FAILED


def unconverted_rows(rows: Sequence[tuple[int, str]]) -> list[Refusal]:
    """Refuse rows by (ordinal, column) that did not convert."""
    return [(ordinal, "conversion", name, f"{name} does not convert") for ordinal, name in rows]


def verdicts(
    batch: pa.Table, judged: pa.Table, row_rules: Sequence[tuple[int, Rule]], refused: list[Refusal]
) -> tuple[pa.ChunkedArray, dict[str, int]]:
    """Add what did not convert and what rules refuse to `refused`; give the rows to keep, and how many violate each
    rule.

    Raises:
        QualityRejectedError: a rule with `on_violation: fail` was violated.
    """
    is_failed = pc.is_valid(judged.column(FAILED))
    if pc.any(is_failed).as_py():
        late = judged.filter(is_failed).select([ORDINAL, FAILED]).to_pydict()
        refused += unconverted_rows(list(zip(late[ORDINAL], late[FAILED], strict=True)))
    keep = pc.invert(is_failed)
    violations: dict[str, int] = {}
    for index, rule in row_rules:
        violated = pc.and_(judged.column(verdict_name(index)), keep)
        count = pc.sum(violated).as_py() or 0
        if not count:
            continue
        violations[rule_key(index, rule)] = count
        if rule.on_violation is OnViolation.FAIL:
            raise rejected(rule, count, batch, judged.filter(violated).column(ORDINAL).to_pylist())
        if rule.on_violation is OnViolation.QUARANTINE:
            hit = judged.filter(violated).column(ORDINAL).to_pylist()
            refused += [(ordinal, "rule", rule.label, f"{rule.label} was violated") for ordinal in hit]
            keep = pc.and_(keep, pc.invert(violated))
    return keep, violations
