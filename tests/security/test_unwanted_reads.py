"""Nobody waits any more for what is read of a small file that stands for hundreds of gigabytes: its thread ends."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrastructure.stores.files.csv_faults import bad_character
from infrastructure.stores.files.csv_text import CsvFile, Dialect, _opened
from infrastructure.stores.files.opening import FilePlace
from infrastructure.stores.files.parquet_files import ParquetData
from infrastructure.threads import OneThread

_BLOCK_BYTES = 128 * 1024
_LONG = 1_000_000


def without_end(path: Path, beginning: bytes, byte: bytes, blocks: int = _LONG) -> Path:
    """A frame of zstd whose blocks are a byte again and again, in four bytes each."""
    repeated = (_BLOCK_BYTES << 3 | 2).to_bytes(3, "little") + byte
    last = (_BLOCK_BYTES << 3 | 3).to_bytes(3, "little") + byte
    begun = (len(beginning) << 3).to_bytes(3, "little") + beginning
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00\x38" + begun + repeated * (blocks - 1) + last)
    return path


def bad(place: Path) -> None:
    with _opened(FilePlace(place), "a") as raw:
        bad_character(raw, "a", "utf-8")


# What is written again and again, and what reads it.
READS: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "lines without rows": (b"\n", lambda place: list(CsvFile(place, "a", Dialect()).batches())),
    "a sample": (b"\n", lambda place: CsvFile(place, "a", Dialect()).beginning(1000)),
    "the line of a row": (b"\n", lambda place: CsvFile(place, "a", Dialect()).line_of(sys.maxsize)),
    "lines left out": (b"x", lambda place: CsvFile(place, "a", Dialect(skip_rows=9)).line_of(1)),
    "a header behind them": (b"x", lambda place: CsvFile(place, "a", Dialect(skip_rows=9)).header()),
    "characters": (b"x", bad),
}


async def left(read: Callable[[Path], object], place: Path) -> None:
    """Read, and leave soon; the thread has to be free then."""
    thread = OneThread("reads on")
    reading = asyncio.create_task(thread.call(read, place))
    await asyncio.sleep(0.03)
    begun = time.monotonic()

    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not thread.is_abandoned
    assert time.monotonic() - begun < 9
    assert await thread.call(lambda: "goes on") == "goes on"
    thread.close()
    assert "reads on" not in [each.name for each in threading.enumerate()]


@pytest.mark.parametrize("name", READS)
async def test_a_thread_whose_caller_has_left_does_not_read_on(tmp_path: Path, name: str) -> None:
    byte, read = READS[name]
    place = without_end(tmp_path / "a.csv.zst", b"id\n", byte)
    await left(read, place)


async def test_times_of_96_bits_are_not_looked_at_to_their_end(tmp_path: Path) -> None:
    place = tmp_path / "a.parquet"
    times = pa.repeat(pa.scalar(0, pa.timestamp("us")), 2_000_000)
    pq.write_table(pa.table({"at": times}), place, use_deprecated_int96_timestamps=True)

    await left(lambda path: next(ParquetData(path, "a").batches(1)), place)


@pytest.mark.parametrize("name", ["lines without rows", "the line of a row", "characters"])
async def test_what_is_waited_for_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    byte, read = READS[name]
    thread = OneThread("reads")

    await thread.call(read, without_end(tmp_path / "a.csv.zst", b"id\n1\n", byte, blocks=1))

    thread.close()
