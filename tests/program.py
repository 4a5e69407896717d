"""Starts the program as a process of its own, forked from one that has imported it; tests kill, stop and signal it.

`subprocess.Popen` with all that it can do, only quicker. Where the start itself is what a test is about, `is_executed`
starts an interpreter; so does `HEADRACE_TEST_EXECUTE=1` everywhere.
"""

import atexit
import ctypes
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_PROGRAM = [sys.executable, "-m", "entrypoints.cli.main"]
_PR_SET_CHILD_SUBREAPER = 36
# Read by the loader or by the interpreter, before there is a program.
_FOR_A_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "FAKETIME")


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
    is_quick = sys.platform == "linux" and "HEADRACE_TEST_EXECUTE" not in os.environ
    kind = _Forked if is_quick and not (is_executed or prefix or _needs_a_start(kept)) else subprocess.Popen
    return kind([*prefix, *_PROGRAM, *arguments], cwd=folder, env=kept, text=True, **streams)


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
    return _server().pid


def _needs_a_start(environment: Mapping[str, str]) -> bool:
    names = {name for name in (*environment, *os.environ) if name.startswith(_FOR_A_START)}
    return any(environment.get(name) != os.environ.get(name) for name in names)


class _Forked(subprocess.Popen[str]):
    """A child that the fork server makes and this process adopts: waiting, pipes and signals are Popen's own."""

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        ends = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        try:
            self.pid = _server().fork(
                {
                    "arguments": list(asked["args"])[len(_PROGRAM) :],
                    "folder": str(Path(asked["cwd"]).absolute()),
                    "environment": dict(asked["env"]),
                    "start_new_session": bool(asked["start_new_session"]),
                },
                [number if end == -1 else end for number, end in enumerate(ends)],
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                *(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
            )


class _ForkServer:
    """The process that has imported the program; it ends with this one."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=_ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false"},  # Else pyarrow starts a thread.
            )  # fmt: skip
        atexit.register(self.close)

    def fork(self, asked: dict[str, Any], files: list[int]) -> int:
        """Have a child made, which becomes this process's own."""
        with self._one_at_a_time:
            self._adopt_orphans(True)
            try:
                socket.send_fds(self._requests, [json.dumps(asked).encode()], files)
                pid = int(self._requests.recv(20))
            finally:
                self._adopt_orphans(False)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # Raises if it is not ours.
        return pid

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._requests.close()
        self._process.wait(timeout=10)

    def _adopt_orphans(self, wanted: bool) -> None:
        if self._libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "this machine adopts no processes; set HEADRACE_TEST_EXECUTE=1")


_servers: list[_ForkServer] = []
_starting = threading.Lock()


def _server() -> _ForkServer:
    with _starting:
        if not _servers:
            _servers.append(_ForkServer())
        return _servers[0]
