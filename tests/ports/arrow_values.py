"""Arrow arrays as plain values that tell what Arrow's equality does not: bits of floats, and times that
Python has not.
"""

import struct
from typing import Any

import pyarrow as pa


def exact(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Values that are equal only if they are the same; NaN is one value."""
    if isinstance(values, pa.ChunkedArray):
        return [value for chunk in values.chunks for value in exact(chunk)]
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return exact(values.storage)
    if types.is_dictionary(kind):
        return exact(values.dictionary_decode())
    if types.is_floating(kind):
        return [None if v is None else "NaN" if v != v else struct.pack(">d", v).hex() for v in values.to_pylist()]
    if types.is_interval(kind):
        return [None if v is None else tuple(v) for v in values.to_pylist()]
    if types.is_temporal(kind):
        return values.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    if types.is_struct(kind):
        fields = [exact(values.field(number)) for number in range(kind.num_fields)]
        return [tuple(row) if v.is_valid else None for row, v in zip(zip(*fields, strict=True), values, strict=True)]
    if types.is_map(kind) or types.is_list(kind):
        items = (
            list(zip(exact(values.keys), exact(values.items), strict=True))
            if types.is_map(kind)
            else exact(values.values)
        )
        borders = values.offsets.to_pylist()
        return [items[borders[n] : borders[n + 1]] if v.is_valid else None for n, v in enumerate(values)]
    return values.to_pylist()
