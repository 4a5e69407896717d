"""The way of one trigger through the code: files it passes, jumps between them, units of work, take-overs of the lane.

A process of its own, whose profile hook sees every call in the four layers, on every thread. It prints one JSON object.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, cast

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from benchmarks.measuring import Line
from domain.identity.principal import Principal, Role
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.metadata.records import SqlRecords
from infrastructure.settings.sources import load_settings
from infrastructure.stores.sql.owner import SqlOwner

ME = Principal("walk", "default", frozenset({Role.PLATFORM_ADMIN}))
ROWS = 500
LIMITS = {
    "files": ("files", 45.0),
    "jumps": ("jumps between files", 450.0),
    "units": ("units of work", 6.0),
    "take_overs": ("take-overs", 1.0),
}
_ROOT = Path(__file__).parents[1]
_LAYERS = ("domain", "application", "infrastructure", "entrypoints")
_DOCUMENTS = (
    "{version: 1, connection: landing, kind: files, options: {root: data}}",
    "{version: 1, pipeline: people, source: {connection: landing, path: people.csv}, destination: {table: people}}",
)


class Walk:
    """Counts while it is installed as the profile hook."""

    def __init__(self, counted: Mapping[str, Sequence[Callable[..., Any]]]) -> None:
        self.files: set[str] = set()
        self.jumps = 0
        self.calls = dict.fromkeys(counted, 0)
        self._names = {
            cast(FunctionType, function).__code__: name for name, functions in counted.items() for function in functions
        }
        self._known: dict[CodeType, str | None] = {}
        self._last: dict[int, str] = {}

    def see(self, frame: FrameType, event: str, _: object) -> None:
        """A call, or a coroutine that goes on."""
        if event != "call":
            return
        code = frame.f_code
        if code not in self._known:
            self._known[code] = self._file(code.co_filename)
        if (file := self._known[code]) is None:
            return
        thread = threading.get_ident()
        self.files.add(file)
        self.jumps += self._last.get(thread, file) != file
        self._last[thread] = file
        if (name := self._names.get(code)) is not None:
            self.calls[name] += 1

    def _file(self, name: str) -> str | None:
        path = Path(name)
        layer = path.relative_to(_ROOT).parts[0] if path.is_relative_to(_ROOT) else ""
        return name if layer in _LAYERS else None


async def walked(use_cases: UseCases) -> Walk:
    """Trigger a pipeline as a door does, and carry the run out as a worker does."""
    walk = Walk({"units": (SqlRecords.unit, SqlRecords.read), "take_overs": (SqlOwner._take_over,)})
    threading.setprofile(walk.see)
    sys.setprofile(walk.see)
    try:
        run = await use_cases.launcher.launch(ME, TriggerRun("people"))
        claimed = await use_cases.claimer.claim(run.scope, run.id)
        assert claimed is not None
        done = await use_cases.executor.execute_to_end(claimed)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert done.report is not None, done
    assert done.report.counts.used == ROWS, done
    return walk


def walking() -> list[Line]:
    """Measure in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.walk"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        (f"{name} of one trigger, beside the limit", found[key], limit, "≤ 1.00")
        for key, (name, limit) in LIMITS.items()
    ]


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data/people.csv").write_text("id,name\n" + "".join(f"{n},name {n}\n" for n in range(ROWS)))
        container = build_container(load_settings(root=folder, environment={}).settings, folder)
        async with running(container, with_store=True) as use_cases:
            for text in _DOCUMENTS:
                document = read_text(text, "walk", {})
                await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))
            walk = await walked(use_cases)
    print(json.dumps({"files": len(walk.files), "jumps": walk.jumps, **walk.calls}))


if __name__ == "__main__":
    asyncio.run(main())
