"""The newest time of a column, as far as there are years."""

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def newest_of(values: pa.ChunkedArray) -> str | None:
    """The greatest date or timestamp in ISO form; one before the year 1 or after 9999 counts as the first or last that
    there is.
    """
    newest = pc.max(values)
    if not newest.is_valid:
        return None
    try:
        found: date = newest.as_py()
    except OverflowError:
        found = _end(newest)
    return found.isoformat()


def _end(beyond: Any) -> date:
    if pa.types.is_date(beyond.type):
        return date.max if beyond.value > 0 else date.min
    end = datetime.max.replace(tzinfo=UTC) if beyond.value > 0 else datetime.min.replace(tzinfo=UTC)
    return end if beyond.type.tz else end.replace(tzinfo=None)
