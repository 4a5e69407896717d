"""The merge keys of a batch: the last row of each, which a merge may write once, and those of refused rows."""

from collections import Counter
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import WorkFailedError
from domain.stores.table import ORDINAL
from infrastructure.tabular.digests import merge_keys
from infrastructure.transforms.refused import Refusal


def refuse_null(rows: pa.Table, key: Sequence[str]) -> None:
    """Refuse rows that cannot be found by their key.

    Raises:
        WorkFailedError: a key column holds NULL (`merge.key_null`).
    """
    for name in key:
        if rows.column(name).null_count:
            raise WorkFailedError(
                f"The key column {name} of the destination holds NULL in the rows to merge; the batch was not "
                "committed.",
                code="merge.key_null",
            )


def last_of_each(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Keep the last row of each key; the order of those that stay is kept."""
    numbered = rows.select(list(key)).append_column(ORDINAL, pa.array(range(rows.num_rows), pa.int64()))
    last = numbered.group_by(list(key)).aggregate([(ORDINAL, "max")]).column(f"{ORDINAL}_max")
    if len(last) == rows.num_rows:
        return rows
    return rows.take(last.take(pc.array_sort_indices(last.combine_chunks())))


def keys_of_refused(
    judged: pa.Table, refused: Sequence[Refusal], key: Sequence[str], uuids: Collection[str]
) -> dict[int, str | None]:
    """What the merge keys of rows that a rule refused are known by, by the rows' ordinals. Of one that did not convert
    nobody knows its key, nor of one of which several were made.
    """
    by_rules = pa.array([ordinal for ordinal, kind, *_ in refused if kind == "rule"], pa.int64())
    if not key or not len(by_rules):
        return {}
    rows = judged.select([*key, ORDINAL]).filter(pc.is_in(judged.column(ORDINAL), value_set=by_rules))
    ordinals = rows.column(ORDINAL).to_pylist()
    found = merge_keys(rows.select(list(key)), uuids)
    made = Counter(ordinals)
    return {ordinal: value for ordinal, value in zip(ordinals, found, strict=True) if made[ordinal] == 1}
