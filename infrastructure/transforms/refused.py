"""Rows that were refused, as they go to quarantine: with their place, the reason, and the row as it was read."""

import json
from collections.abc import Sequence

import pyarrow as pa

REFUSED = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("kind", pa.string()),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("record", pa.string()),
    ]
)
Refusal = tuple[int, str, str | None, str]
"""Ordinal, kind, rule and reason of a refused row."""


def refused_table(batch: pa.Table, refused: Sequence[Refusal]) -> pa.Table:
    """Gather refused rows of a batch, in its order."""
    if not refused:
        return REFUSED.empty_table()
    ordered = sorted(refused, key=lambda item: item[0])
    records = batch.take([ordinal for ordinal, *_ in ordered]).to_pylist()
    texts = [json.dumps(record, default=str, ensure_ascii=False) for record in records]
    ordinals, kinds, rules, reasons = zip(*ordered, strict=True)
    return pa.table([list(ordinals), list(kinds), list(rules), list(reasons), texts], schema=REFUSED)
