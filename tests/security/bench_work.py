"""What the tests have a child do: attacks and their permitted twins, importable without the tests' own libraries."""

import ctypes
import os
import resource
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from domain.errors import FencedError, Problem, QualityRejectedError, SpecError
from domain.first_errors import FirstError
from domain.quality.rules import OnViolation
from domain.stores.table import Column
from infrastructure.bench.asking import ask

_LIBC = ctypes.PyDLL(None)  # Holds the interpreter's lock while it calls.


def pid() -> int:
    return os.getpid()


def tree() -> dict[str, Any]:
    column = Column("a", "int64")
    return {"columns": (column,), "set": frozenset({"x"}), "on": OnViolation.FAIL, "n": [Decimal("1.50"), 2**70, None]}


def echo(value: object) -> object:
    return value


@dataclass
class Loose:
    value: int


def loose() -> Loose:
    return Loose(1)


def many_problems() -> None:
    raise SpecError([Problem("a", "spec.value", "one"), Problem("b", "spec.other", "two")])


def fenced() -> None:
    raise FencedError("newer", fence=7)


def rejected() -> None:
    error = QualityRejectedError("violated")
    error.first_errors = [FirstError(ordinal=3)]
    raise error


def bug(value: str) -> None:
    raise KeyError(value)


def hold(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def hold_in_c(seconds: int) -> None:
    _LIBC.sleep(seconds)


def in_duckdb(sql: str) -> list[Any]:
    with duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "200MB"}) as connection:
        return connection.execute(sql).fetchall()


def take(megabytes: int) -> int:
    return len(bytearray(b"x") * (megabytes * 1024 * 1024))


def nested(levels: int) -> int:
    text = "x"
    for _ in range(levels):
        text += text
    return len(text)


def parsed_by_postgres(sql: str) -> int:
    import postgast

    return len(postgast.parse(sql).stmts)


def spin() -> None:
    while True:
        pass


def spin_for(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def spin_and_refuse(seconds: float) -> None:
    spin_for(seconds)
    many_problems()


def surroundings() -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir()),
        "session": os.getsid(0),
        "pid": os.getpid(),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "folder": str(Path.cwd()),
    }


def write_file(path: str) -> None:
    with Path(path).open("w") as file:
        file.write("x" * 100)


def asked(question: str) -> Any:
    return ask(question, 2)
