"""A real `headrace up` on a free port, as a process of its own, and a client of its API."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.program import run_program, start_program

# Each batch takes its time, so that a test can act in the middle of a run however quick or busy the machine is.
SLOW_BATCHES = "batch.before_begin:1+:sleep=0.02"


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "DB_", "COV"))}
    return {**kept, **extra}


def headrace(folder: Path, *arguments: str, stdin: str | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process."""
    return run_program(*arguments, folder=folder, environment=environment(**extra), stdin=stdin)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Server:
    folder: Path
    process: subprocess.Popen[str]
    url: str
    key: str

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: bytes | None = None,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        sent = {"Authorization": f"Bearer {self.key if key is None else key}", **(headers or {})}
        data = content
        if body is not None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = kind
        found = urllib3.request(method, self.url + path, body=data, headers=sent, retries=False, timeout=30.0)
        is_json = "json" in found.headers.get("content-type", "")
        return Answer(found.status, found.headers, json.loads(found.data) if is_json and found.data else found.data)

    def wait_for(self, run_id: str, seconds: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run: dict[str, Any] = self.call("GET", f"/v1/runs/{run_id}").body
            if run["state"] not in ("queued", "running"):
                return run
            time.sleep(0.02)
        raise AssertionError(f"run {run_id} did not end: {run}")

    def kill(self) -> int:
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait(timeout=10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


def start(folder: Path, *, home: str = ".headrace", **extra: str) -> Server:
    with (folder / "up.log").open("a") as log:
        process = start_program(
            "up", "--port", "0", folder=folder, environment=environment(HEADRACE_HOME=home, **extra), stderr=log
        )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "up.log").read_text()
        try:
            found = json.loads((folder / home / "server.json").read_text())
            if (
                found["pid"] == process.pid
                and urllib3.request("GET", f"{found['url']}/ready", retries=False).status == 200
            ):
                key = (folder / home / "admin.key").read_text().strip()
                return Server(folder, process, found["url"], key)
        except (OSError, ValueError, urllib3.exceptions.HTTPError):
            pass
        time.sleep(0.02)
    process.kill()
    raise AssertionError((folder / "up.log").read_text())


@contextmanager
def serving(folder: Path, **extra: str) -> Iterator[Server]:
    server = start(folder, **extra)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def openapi() -> dict[str, Any]:
    """The API's description, as the code gives it."""
    from entrypoints.http.app import create_app

    described = create_app(None, title="headrace", max_body_bytes=10 * 1024 * 1024).openapi()  # type: ignore[arg-type]
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain
