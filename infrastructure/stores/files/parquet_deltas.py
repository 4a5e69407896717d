"""Integers of Parquet as differences (DELTA_BINARY_PACKED), of which nothing but the greatest is wanted."""

from collections.abc import Iterator

GREATEST = 2**31 - 1
_AT_A_TIME = 32
"""Of how many differences the bits end with a byte, however many bits each has."""


def greatest(content: memoryview, at: int) -> int:
    """The greatest of the integers that begin at a place, 0 at least; what is not as it should be stands for any."""
    try:
        return max(0, *_found(content, at))
    except (IndexError, ValueError):
        return GREATEST


def _found(content: memoryview, at: int) -> Iterator[int]:
    block, at = _unsigned(content, at)
    parts, at = _unsigned(content, at)
    left, at = _unsigned(content, at)
    first, at = _unsigned(content, at)
    value = _signed(first)
    yield value
    left -= 1
    per_part = block // parts if parts else 0
    if left > 0 and (per_part < _AT_A_TIME or per_part % _AT_A_TIME):
        raise ValueError
    while left > 0:
        least, at = _unsigned(content, at)
        widths, at = bytes(content[at : at + parts]), at + parts
        for width in widths:
            count = min(per_part, left)
            if not count:
                break
            value, most = _added(content[at : at + (count * width + 7) // 8], width, count, (value, _signed(least)))
            yield most
            at += per_part * width // 8
            left -= count


def _added(packed: memoryview, width: int, count: int, begun: tuple[int, int]) -> tuple[int, int]:
    """The last and the greatest value of a part."""
    value, least = begun
    if len(packed) * 8 < count * width:
        raise IndexError
    if not width:
        value, most = value + least * count, max(value + least, value + least * count)
    else:
        most, mask = value, 2**width - 1
        for start in range(0, count, _AT_A_TIME):
            bits = int.from_bytes(packed[start * width // 8 : (start + _AT_A_TIME) * width // 8], "little")
            for _ in range(min(_AT_A_TIME, count - start)):
                value += least + (bits & mask)
                most = max(most, value)
                bits >>= width
    if not -GREATEST <= value <= most <= GREATEST:
        raise ValueError  # Readers go round at the end of their numbers.
    return value, most


def _unsigned(content: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = content[at]
        at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, at
        if shift > 70:
            raise ValueError


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
