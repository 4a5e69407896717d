"""Times that Postgres has not, which it would take for others without a word."""

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import SchemaMismatchError

# 4714-11-24 BC, in days and in microseconds since 1970; the last day that there is; and what DuckDB writes for
# infinity.
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905
_FIRST_MOMENT, _LAST_MOMENT = -210_866_803_200_000_000, 2**63 - 2


def refuse_far_times(rows: pa.Table) -> None:
    """Refuse dates and timestamps that Postgres has not: on the wire they would come round at the other end.

    Raises:
        SchemaMismatchError: there is one (`source.time_out_of_range`).
    """
    for field, values in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_date32(field.type):
            kind, first, last = pa.int32(), _FIRST_DAY, _LAST_DAY
        elif pa.types.is_timestamp(field.type):
            kind, first, last = pa.int64(), _FIRST_MOMENT, _LAST_MOMENT
        else:
            continue
        found = [pc.min_max(chunk.view(kind)) for chunk in values.chunks if chunk.null_count < len(chunk)]
        if any(each["min"].as_py() < first or each["max"].as_py() > last for each in found):
            raise SchemaMismatchError(
                f"The column {field.name} holds infinity or a time that Postgres has not; turn it into NULL in the "
                "source query or in a step.",
                code="source.time_out_of_range",
            )
