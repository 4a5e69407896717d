"""Keys of rows by a digest of each: however long their values are, as many as there are may be remembered."""

import hashlib
from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from infrastructure.tabular.json_rows import encoded

_TOGETHER_BYTES = 4 * 1024 * 1024
_FORM = "2:"
"""How merge keys are written now. Versions that wrote none had the names of the steps for what was refused and the
destination's for what landed, so that theirs are equal to none, nor may they ever be.
"""


def digest_of(text: str) -> bytes:
    """16 bytes that tell a text from others."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digests(key: pa.Table) -> Iterator[bytes]:
    """The digest of each row, whose texts are there some megabytes at a time."""
    many = max(1, _TOGETHER_BYTES * key.num_rows // max(1, key.nbytes))
    for start in range(0, key.num_rows, many):
        yield from map(digest_of, encoded(key.slice(start, many)))


def merge_keys(key: pa.Table, uuids: Collection[str]) -> list[str | None]:
    """What rows are known by in the quarantine, by the columns of their merge key; None where there is NULL in it.

    Neither the letter case of the columns' names counts, which the steps and the destination may each have their own
    of, nor their order. Only the columns `uuids` hold values equal that are written in two ways.
    """
    valid = [True] * key.num_rows
    for place, name in enumerate(key.column_names):
        if name in uuids and pa.types.is_string(key.column(name).type):
            key = key.set_column(place, name, pc.utf8_lower(key.column(name)))
        if key.column(name).null_count:
            there = pc.is_valid(key.column(name)).to_pylist()
            valid = [one and other for one, other in zip(valid, there, strict=True)]
    names = sorted(key.column_names, key=str.lower)
    found = digests(key.select(names).rename_columns([name.lower() for name in names]))
    return [f"{_FORM}{one.hex()}" if is_valid else None for one, is_valid in zip(found, valid, strict=True)]
