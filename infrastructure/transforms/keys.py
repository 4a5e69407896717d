"""The last row of each key of a batch: what a merge may write once."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import WorkFailedError
from domain.stores.table import ORDINAL


def last_of_each(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Keep the last row of each key; the order of those that stay is kept.

    Raises:
        WorkFailedError: a key column holds NULL (`merge.key_null`), which no row can be found by.
    """
    for name in key:
        if rows.column(name).null_count:
            raise WorkFailedError(
                f"The key column {name} of the destination holds NULL in the rows to merge; the batch was not "
                "committed.",
                code="merge.key_null",
            )
    numbered = rows.select(list(key)).append_column(ORDINAL, pa.array(range(rows.num_rows), pa.int64()))
    last = numbered.group_by(list(key)).aggregate([(ORDINAL, "max")]).column(f"{ORDINAL}_max")
    if len(last) == rows.num_rows:
        return rows
    return rows.take(last.take(pc.array_sort_indices(last.combine_chunks())))
