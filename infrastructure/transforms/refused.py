"""Rows that were refused, as they go to quarantine: with their place, the reason, and the row as it was read."""

from collections.abc import Sequence

import pyarrow as pa

from infrastructure.records import encoded

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
