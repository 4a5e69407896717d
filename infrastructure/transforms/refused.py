"""Rows that were refused, as they go to quarantine: with their place, the reason, and the row as it was read."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from domain.errors import QualityRejectedError
from domain.first_errors import FirstError
from domain.ports.data_store import JudgedBatch
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts, Measures
from domain.quality.rules import Rule
from domain.rule_results import RuleResult
from domain.stores.table import DELETED, Column
from infrastructure.tabular.arrow import arrow_type
from infrastructure.tabular.json_rows import encoded
from infrastructure.transforms.shapes import shape_of_scalar

_FIRST_ERRORS = 5
_TOGETHER_BYTES = 4 * 1024 * 1024
REFUSED = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("kind", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("record", pa.string()),
        ("columns", pa.dictionary(pa.int32(), pa.string())),
        ("merge_key", pa.string()),
    ]
)
Refusal = tuple[int, str, str, str]
"""Ordinal and kind of a refused row; the rule that refused it, or the column that did not convert; and the reason."""


def refused_table(batch: pa.Table, refused: Sequence[Refusal], types: str, keys: Mapping[int, str | None]) -> pa.Table:
    """Gather refused rows of a batch, in its order; `types` says of which types their values are, and `keys` what
    their merge keys are known by, where they are known.
    """
    if not refused:
        return REFUSED.empty_table()
    ordered = sorted(refused, key=lambda item: item[0])
    records = pa.chunked_array(list(_records(batch, [ordinal for ordinal, *_ in ordered])), pa.string())
    ordinals, kinds, subjects, reasons = zip(*ordered, strict=True)
    rules = [subject if kind == "rule" else None for kind, subject in zip(kinds, subjects, strict=True)]
    shapes = pa.DictionaryArray.from_arrays(pa.repeat(0, len(records)).cast(pa.int32()), pa.array([types]))
    values = [list(ordinals), list(kinds), rules, list(reasons), records, shapes, [keys.get(n) for n in ordinals]]
    return pa.table(values, schema=REFUSED)


def _records(batch: pa.Table, ordinals: list[int]) -> Iterator[pa.Array]:
    """Rows as they were read, some megabytes at a time: as objects they take several times their size."""
    first, last = ordinals[0], ordinals[-1]
    if len(ordinals) > 1 and batch.slice(first, last - first + 1).nbytes > _TOGETHER_BYTES:
        half = len(ordinals) // 2
        yield from _records(batch, ordinals[:half])
        yield from _records(batch, ordinals[half:])
        return
    are_neighbors = ordinals == [*range(first, last + 1)]  # These need no copy.
    rows = batch.slice(first, len(ordinals)) if are_neighbors else batch.take(ordinals)
    yield pa.array(encoded(rows), pa.string())


def first_errors(batch: pa.Table, refused: Sequence[Refusal], rules: Sequence[Rule]) -> tuple[FirstError, ...]:
    """A few refusals of a batch for its report, conversions before rules: each with its column and the shape of the
    value there, never with the value; the ordinal counts the batch's rows.
    """
    columns = {rule.label: rule.column for rule in rules}
    found = []
    for ordinal, kind, subject, reason in sorted(refused, key=_conversions_first)[:_FIRST_ERRORS]:
        column = subject if kind == "conversion" else columns.get(subject)
        shape = shape_of_scalar(batch.column(column)[ordinal]) if column in batch.column_names else None
        found.append(FirstError(kind, reason, ordinal, column, shape))
    return tuple(found)


def _conversions_first(refusal: Refusal) -> tuple[bool, int]:
    return refusal[1] != "conversion", refusal[0]


def rejected(rule: Rule, count: int, batch: pa.Table, ordinals: Sequence[int]) -> QualityRejectedError:
    """The end of a batch of which rows violate a rule with `on_violation: fail`."""
    error = QualityRejectedError(
        f"The rule {rule.label} was violated by {count} rows of a batch, which was not committed. "
        "Set on_violation: quarantine to keep such rows aside."
    )
    refused = [(ordinal, "rule", rule.label, f"{rule.label} was violated") for ordinal in ordinals[:_FIRST_ERRORS]]
    error.first_errors = first_errors(batch, refused, [rule])
    error.results = (
        RuleResult(rule.label, "row", rule.on_violation.value, "fail", batch.num_rows, count, value=float(count)),
    )
    return error


def nothing_judged(columns: Sequence[Column], plan: TransformPlan) -> JudgedBatch:
    """What becomes of no rows."""
    columns = [*columns, *([Column(DELETED, "bool")] if plan.deleted_when is not None else [])]
    arrays = [pa.array([], arrow_type(column.type)) for column in columns]
    return JudgedBatch(
        pa.table(arrays, names=[column.name for column in columns]), REFUSED.empty_table(), Counts(), Measures()
    )
