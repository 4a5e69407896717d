"""Values of Arrow as the text in which they travel, exactly: what Arrow's own casts write in another way or
not at all.
"""

import re
from datetime import date
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

from domain.far_times import DAY_MICROSECONDS, clock_text, day_text, moment_text

_EPOCH = date(1970, 1, 1).toordinal()
_ERA_DAYS, _ERA_YEARS = 146_097, 400
_TIME = re.compile(
    r"(?:(-?[0-9]{4,})-([0-9]{2})-([0-9]{2}))?[ T]?(?:([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6})0*)?)?Z?"
)
_HYPHENS = (0, 8, 12, 16, 20, 32)


def texts_of_decimals(values: pa.Array) -> pa.Array:
    """Write decimals with all their places and without an exponent."""
    return pa.array([None if value is None else f"{value:f}" for value in values.to_pylist()], pa.string())


def texts_of_uuids(values: pa.Array) -> pa.Array:
    """Write 16 bytes each as a UUID."""
    filled = pc.fill_null(values, bytes(16))
    _, data = filled.buffers()
    begin = filled.offset * 16
    digits = data.slice(begin, len(filled) * 16).to_pybytes().hex().encode() if len(filled) else b""
    # 32 digits each lie end to end, so the offsets are known and no value becomes a Python object.
    offsets = pa.array(range(0, 32 * (len(filled) + 1), 32), pa.int32())
    text = pa.StringArray.from_buffers(len(filled), offsets.buffers()[1], pa.py_buffer(digits))
    parts = [pc.utf8_slice_codeunits(text, a, b) for a, b in pairwise(_HYPHENS)]
    joined = pc.binary_join_element_wise(*parts, "-")
    return pc.if_else(pc.is_valid(values), joined, pa.scalar(None, pa.string())) if values.null_count else joined


def texts_of_times(values: pa.Array) -> list[str | None]:
    """Write dates, times and timestamps of microseconds: as Arrow does, and what Arrow cannot write in the
    same manner.
    """
    kind = values.type
    if pa.types.is_time(kind):
        return [None if time is None else clock_text(time) for time in _integers(values)]
    if pa.types.is_date(kind):
        return [None if day is None else day_text(day) for day in _integers(values)]
    zone = "Z" if kind.tz else ""
    return [None if moment is None else f"{moment_text(moment)}{zone}" for moment in _integers(values)]


def times_of_texts(texts: list[str | None], kind: pa.DataType) -> pa.Array:
    """Read what `texts_of_times` has written."""
    numbers = [None if text is None else _number(text) for text in texts]
    if pa.types.is_date(kind):
        return pa.array([None if n is None else n // DAY_MICROSECONDS for n in numbers], pa.int32()).view(kind)
    return pa.array(numbers, pa.int64()).view(kind)


def _integers(values: pa.Array) -> list[int | None]:
    bits = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    numbers: list[int | None] = values.view(bits).to_pylist()
    return numbers


def _number(text: str) -> int:
    """Microseconds since 1970, or since midnight where there is no date."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("This is no time.")
    years, month, day, hours, minutes, seconds, rest = found.groups()
    clock = ((int(hours or 0) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)) * 1_000_000 + int(
        (rest or "").ljust(6, "0")
    )
    if years is None:
        return clock
    eras, year = divmod(int(years) - 1, _ERA_YEARS)
    days = date(year + 1, int(month), int(day)).toordinal() + eras * _ERA_DAYS - _EPOCH
    return days * DAY_MICROSECONDS + clock
