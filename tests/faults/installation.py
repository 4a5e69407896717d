"""Headrace in its many-process shape: one `api`, any number of `worker`, records and store on Postgres, a broker."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from tests.e2e.api import Server, environment, headrace
from tests.e2e.projects import postgres_environment, write
from tests.faults import oracle
from tests.program import start_program

QUICK = {"HEADRACE_RUN__LEASE_SECONDS": "2", "HEADRACE_RUN__TICK_SECONDS": "0.2", "HEADRACE_HTTP__GRACE_SECONDS": "10"}


@dataclass
class Process:
    """One process and what it has said."""

    popen: subprocess.Popen[str]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def kill(self) -> int:
        self.popen.kill()
        return self.popen.wait(timeout=10)

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=40)


@dataclass
class Installation:
    """Processes that share one project, one database and one broker."""

    folder: Path
    url: str
    settings: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    @property
    def query(self) -> oracle.Query:
        return oracle.postgres_query(self.url)

    @property
    def records(self) -> oracle.Query:
        """The platform's records, by their tables' own names."""
        return oracle.postgres_query(f"{self.url}?options=-csearch_path%3Dheadrace")

    def api(self, **extra: str) -> Server:
        process = self._start("api", "--port", "0", **extra)
        found = self._ready(process)
        key = (self.folder / ".headrace/admin.key").read_text().strip()
        return Server(self.folder, process.popen, found["url"], key)

    def worker(self, *arguments: str, **extra: str) -> Process:
        process = self._start("worker", *arguments, **extra)
        self._ready(process)
        return process

    def apply(self) -> None:
        done = headrace(self.folder, "apply", "--yes", **self.settings)
        assert done.returncode == 0, done.stderr

    def states(self) -> dict[str, int]:
        return {
            str(state): int(count) for state, count in self.records("SELECT state, count(*) FROM runs GROUP BY state")
        }

    def wait_until_done(self, runs: int, seconds: float = 60) -> dict[str, int]:
        """Wait until so many runs have ended, all the others too."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = self.states()
            if not states.get("queued") and not states.get("running") and sum(states.values()) >= runs:
                return states
            time.sleep(0.05)
        raise AssertionError(f"{self.states()}; {self.processes[-1].said()[-3000:]}")

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.send_signal(signal.SIGCONT)
                process.kill()

    def _start(self, *arguments: str, **extra: str) -> Process:
        log = self.folder / f"{arguments[0]}-{len(self.processes)}.log"
        with log.open("w") as file:
            popen = start_program(
                *arguments,
                folder=self.folder,
                environment=environment(**{**self.settings, "HEADRACE_LOGS__FORMAT": "json", **extra}),
                stderr=file,
                stdout=subprocess.DEVNULL,
            )
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def _ready(self, process: Process) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert process.popen.poll() is None, process.said()
            for line in process.lines():
                if line.get("event") == "process.ready":
                    return line
            time.sleep(0.02)
        raise AssertionError(process.said())


@contextmanager
def installed(folder: Path, url: str, queue: dict[str, str], **extra: str) -> Iterator[Installation]:
    """An installation without processes yet; all that are started are ended."""
    settings = {
        **postgres_environment(url), "HEADRACE_METADATA__KIND": "postgres", **queue, **QUICK, **extra,
    }  # fmt: skip
    made = Installation(folder, url, settings)
    try:
        yield made
    finally:
        made.close()


def with_copies(made: Installation, count: int, *, rows: int = 2000, batch_rows: int = 200) -> None:
    """A source and `count` pipelines that each append it, by its key, to a table of their own."""
    made.query(f"CREATE TABLE source AS SELECT g::bigint AS id, md5(g::text) AS note FROM generate_series(1, {rows}) g")
    made.query("ALTER TABLE source ADD PRIMARY KEY (id)")
    for number in range(count):
        write(
            made.folder,
            f"pipelines/copy{number}.yaml",
            f"version: 1\npipeline: copy{number}\nsource: {{table: source, cursor: {{column: id}}}}\n"
            "transform: [{sql: select * from batch}]\n"  # Batches, and not one statement of the database.
            f"destination: {{table: copy{number}}}\nrun: {{batch_rows: {batch_rows}}}\n",
        )
    made.apply()


def assert_exact(made: Installation, count: int, *, rows: int = 2000) -> None:
    """Every copy has each row once, however many runs there were."""
    for number in range(count):
        found = made.query(f"SELECT count(*), count(DISTINCT id), min(id), max(id) FROM copy{number}")
        assert found == [(rows, rows, 1, rows)], f"copy{number}: {found}"
    assert oracle.audit(made.records) == []


def trigger(server: Server, pipeline: str) -> str | None:
    """Ask for a run; its id, or None when the server did not answer."""
    try:
        answer = server.call("POST", f"/v1/pipelines/{pipeline}/trigger", {})
    except urllib3.exceptions.HTTPError:
        return None
    assert answer.status == 202, answer.body
    return str(answer.body["id"])
