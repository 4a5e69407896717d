"""Starts the program as a process of its own, forked from one that has imported it; tests kill, stop and signal it.

`subprocess.Popen` with all that it can do, only quicker. Where the start itself is what a test is about, `is_executed`
starts an interpreter; so does `HEADRACE_TEST_EXECUTE=1` everywhere.
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.forked import ForkClient, Forked

_ROOT = Path(__file__).parents[1]
_PROGRAM = [sys.executable, "-m", "entrypoints.cli.main"]
# Read by the loader or by the interpreter, before there is a program.
_FOR_A_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "FAKETIME")


def is_quick() -> bool:
    """Whether programs are forked; asked anew each time, since benchmarks say otherwise when they begin."""
    return sys.platform == "linux" and "HEADRACE_TEST_EXECUTE" not in os.environ


def start_program(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    is_executed: bool = False,
    prefix: tuple[str, ...] = (),
    **streams: Any,
) -> "subprocess.Popen[str]":
    """Start `headrace` with these arguments and nothing of the tests' own environment.

    `streams` are Popen's `stdin`, `stdout`, `stderr` and `start_new_session`. A `prefix`, such as strace with its
    options, runs an interpreter too.
    """
    kept = dict(environment)
    if is_quick() and not (is_executed or prefix or _needs_a_start(kept)):
        return Forked(fork_server(), arguments, cwd=folder, env=kept, text=True, **streams)
    return subprocess.Popen([*prefix, *_PROGRAM, *arguments], cwd=folder, env=kept, text=True, **streams)


def run_program(
    *arguments: str, folder: Path, environment: Mapping[str, str], stdin: str | None = None, seconds: float = 100
) -> "subprocess.CompletedProcess[str]":
    """Run `headrace` to its end."""
    takes = subprocess.PIPE if stdin is not None else subprocess.DEVNULL
    process = start_program(
        *arguments,
        folder=folder, environment=environment, stdin=takes, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def fork_server_pid() -> int:
    """The process that programs are forked from."""
    return fork_server().pid


def _needs_a_start(environment: Mapping[str, str]) -> bool:
    names = {name for name in (*environment, *os.environ) if name.startswith(_FOR_A_START)}
    return any(environment.get(name) != os.environ.get(name) for name in names)


class _ForkServer(ForkClient):
    """The process that has imported the program; it ends with this one."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=_ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false"},  # Else pyarrow starts a thread.
            )  # fmt: skip
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        super().close()
        self._process.wait(timeout=10)


_servers: list[_ForkServer] = []
_starting = threading.Lock()


def started_fork_server() -> _ForkServer | None:
    """As `fork_server`, if there is one: starting one takes longer than a process."""
    return _servers[0] if _servers else None


def fork_server() -> _ForkServer:
    """The process that programs are forked from."""
    with _starting:
        if not _servers:
            _servers.append(_ForkServer())
        return _servers[0]
