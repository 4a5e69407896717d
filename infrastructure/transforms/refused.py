"""Rows that were refused, as they go to quarantine: with their place, the reason, and the row as it was read."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from infrastructure.records import encoded

_FIRST_ERRORS = 5
REFUSED = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("kind", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("record", pa.string()),
        ("columns", pa.string()),
    ]
)
Refusal = tuple[int, str, str, str]
"""Ordinal and kind of a refused row; the rule that refused it, or the column that did not convert; and the reason."""


def refused_table(batch: pa.Table, refused: Sequence[Refusal], shape: str) -> pa.Table:
    """Gather refused rows of a batch, in its order; `shape` says of which types their values are."""
    if not refused:
        return REFUSED.empty_table()
    ordered = sorted(refused, key=lambda item: item[0])
    records = encoded(batch.take([ordinal for ordinal, *_ in ordered]))
    ordinals, kinds, subjects, reasons = zip(*ordered, strict=True)
    rules = [subject if kind == "rule" else None for kind, subject in zip(kinds, subjects, strict=True)]
    values = [list(ordinals), list(kinds), rules, list(reasons), records, [shape] * len(records)]
    return pa.table(values, schema=REFUSED)


def first_errors(refused: Sequence[Refusal]) -> list[dict[str, Any]]:
    """A few refusals of a batch for its report, conversions before rules; the ordinal counts the batch's rows."""
    ordered = sorted(refused, key=lambda refusal: (refusal[1] != "conversion", refusal[0]))
    return [
        {"kind": kind, "message": reason, "ordinal": ordinal, **({"column": subject} if kind == "conversion" else {})}
        for ordinal, kind, subject, reason in ordered[:_FIRST_ERRORS]
    ]
