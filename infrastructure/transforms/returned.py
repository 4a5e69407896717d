"""How much a Python function may give for the rows it was given, looked at before any of it is copied."""

from dataclasses import dataclass, replace
from itertools import compress

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import WorkFailedError
from infrastructure.queries.duckdb_sizes import MAX_GROWTH
from infrastructure.transforms.failures import TOO_LARGE

_MEBIBYTE = 1024 * 1024
_OF_EACH = 5
"""Bytes of a value beside its own: where it ends, and whether it is NULL."""
_UUID = 36


@dataclass(frozen=True)
class Returnable:
    """What a function may give for a batch: so much, or as many times the batch as steps in SQL may make of it.

    `memory` names the setting of which `size_bytes` are a quarter.
    """

    rows: int = 1_000_000
    size_bytes: int = 256 * _MEBIBYTE
    columns: int = 5_000
    memory: str = "HEADRACE_TRANSFORMS__MEMORY_MB"

    def beside(self, batch: pa.Table) -> "Returnable":
        """What it may give for one of the batch's own size."""
        rows, size = MAX_GROWTH * batch.num_rows, MAX_GROWTH * batch.nbytes
        return replace(self, rows=max(self.rows, rows), size_bytes=max(self.size_bytes, size))

    def check(self, name: str, table: pa.Table, given: int) -> None:
        """Refuse what is more, in the form in which it goes on.

        Raises:
            WorkFailedError: it is (`transform.too_large`).
        """
        if table.num_columns > self.columns:
            raise _too_large(
                f"{name} gave {table.num_columns:,} columns where there may be {self.columns:,}: let it give fewer, "
                "or raise HEADRACE_LIMITS__COLUMNS."
            )
        if table.num_rows > self.rows:
            raise _too_large(
                f"{name} gave {table.num_rows:,} rows for {given:,} where a batch may have {self.rows:,}: let it give "
                "fewer, set run.batch_rows lower, or MAX_BATCH_SIZE higher."
            )
        size = sum(travelling_bytes(chunk) for column in table.columns for chunk in column.chunks)
        if size > self.size_bytes:
            raise _too_large(
                f"{name} gave {size // _MEBIBYTE:,} MB for {given:,} rows where it may give "
                f"{self.size_bytes // _MEBIBYTE:,}: let it give less, set run.batch_rows lower, or {self.memory} "
                "higher, of which it may be a quarter."
            )


def travelling_bytes(values: pa.Array) -> int:
    """The bytes of values written out, which may be many times what they have as they lie."""
    kind, types, count = values.type, pa.types, len(values)
    size: int
    if not _is_packed(kind):
        size = values.nbytes
    elif types.is_null(kind):
        size = _OF_EACH * count
    elif isinstance(kind, pa.BaseExtensionType):
        size = travelling_bytes(values.storage) + _UUID * count
    elif types.is_dictionary(kind):
        size = _sum(_each(values.dictionary).take(values.indices)) + _OF_EACH * count
    elif types.is_run_end_encoded(kind):
        runs = pa.RunEndEncodedArray.from_arrays(values.run_ends, _each(values.values))
        size = _sum(pc.run_end_decode(runs.slice(values.offset, count)))
    elif types.is_string_view(kind) or types.is_binary_view(kind):
        size = _viewed(values) + _OF_EACH * count
    elif types.is_struct(kind):
        size = sum(map(travelling_bytes, values.flatten()))
    elif types.is_map(kind):
        size = travelling_bytes(values.keys) + travelling_bytes(values.items) + _OF_EACH * count
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        items, there = _sum(pc.list_value_length(values)), values.values
        # None that is looked at twice is the usual case.
        size = travelling_bytes(there) * (1 if items <= len(there) else items) + _OF_EACH * count
    else:
        size = travelling_bytes(values.flatten()) + _OF_EACH * count
    return size


def _is_packed(kind: pa.DataType) -> bool:
    """Whether values of a type, or some inside of them, take more written out."""
    types = pa.types
    is_view = types.is_string_view(kind) or types.is_binary_view(kind)
    is_view = is_view or types.is_list_view(kind) or types.is_large_list_view(kind)
    if is_view or types.is_null(kind) or types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_is_packed(kind.field(number).type) for number in range(kind.num_fields))


def _each(values: pa.Array) -> pa.Array:
    """The bytes of each of some values; of what is not plain, as many as all have."""
    kind, types = values.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return pc.add(pc.fill_null(pc.cast(pc.binary_length(values), pa.int64()), 0), _OF_EACH)
    try:
        width = kind.bit_width // 8 + 1
    except ValueError:
        width = travelling_bytes(values)
    return pa.array([width] * len(values), pa.int64())


def _viewed(views: pa.Array) -> int:
    """The bytes of the texts that views show: each begins with its length."""
    buffer = views.buffers()[1]
    if buffer is None:
        return 0
    begin, end = 4 * views.offset, 4 * (views.offset + len(views))
    lengths = memoryview(buffer).cast("b").cast("i")[begin:end:4]
    return sum(compress(lengths, views.is_valid().to_pylist()) if views.null_count else lengths)


def _sum(numbers: pa.Array) -> int:
    return int(pc.sum(numbers).as_py() or 0)


def _too_large(what: str) -> WorkFailedError:
    return WorkFailedError(f"The Python step {what}", code=TOO_LARGE)
