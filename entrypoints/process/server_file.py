"""`server.json` in the home: where a running `headrace up` listens, so that commands go through it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from entrypoints.composition.processes import is_gone, own_mark


@dataclass(frozen=True)
class ServerFile:
    """The address of a running server and the process that is it."""

    url: str
    pid: int


def write_server(path: Path, url: str) -> None:
    """Write the file for its owner only, in one step."""
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": url, "pid": os.getpid(), "process": own_mark()}, file)
    temporary.replace(path)


def read_server(path: Path) -> ServerFile | None:
    """Read the file, or None if there is none or its process is gone."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if is_gone(found["process"]):
            return None
        return ServerFile(str(found["url"]), int(found["pid"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def remove_server(path: Path) -> None:
    """Remove the file if it is ours."""
    found = read_server(path)
    if found is not None and found.pid == os.getpid():
        path.unlink(missing_ok=True)
