"""The columns that a read set has planned, beside those that its source has now; in every store."""

from collections.abc import Sequence

from domain.errors import SchemaMismatchError
from domain.stores.table import Column

# What a type was called by the version before, whose read sets go on.
_ONCE = {"decimal(39,0)": "decimal(38,0)", "native:json": "json"}


def check_planned(planned: Sequence[Column], now: Sequence[Column]) -> None:
    """Refuse a source that cannot give what was planned any more. What came since belongs to the next read set.

    Raises:
        SchemaMismatchError: a planned column is gone or has another type (`source.changed`).
    """
    kinds = {column.name: column.type for column in now}
    for column in planned:
        if not _is_same(column.type, kinds.get(column.name, "")):
            what = f"has the type {kinds[column.name]} now" if column.name in kinds else "is gone"
            raise SchemaMismatchError(
                f"The source's column {column.name}, which was {column.type} when the run was planned, {what}: put it "
                "back and run again, or start anew with --full-refresh, or with --abandon beside the rows that are "
                "there.",
                code="source.changed",
            )


def _is_same(planned: str, now: str) -> bool:
    return planned in (now, _ONCE.get(now), now.replace("decimal(", "native:numeric("))
