"""A process that a fork server makes and this one adopts: all that `subprocess.Popen` can do, only quicker."""

import ctypes
import inspect
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infrastructure.bench import process

BENCH = "--a-child-of-a-bench"
executed = process.execute
_PR_SET_CHILD_SUBREAPER = 36


class ForkClient:
    """The side of a fork server that asks."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._one_at_a_time = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)

    def fork(self, asked: Mapping[str, Any], files: Sequence[int]) -> int:
        """Have a child made, which becomes this process's own."""
        with self._one_at_a_time:
            self._adopt_orphans(True)
            try:
                socket.send_fds(self._requests, [json.dumps(asked).encode()], list(files))
                pid = int(self._requests.recv(20))
            finally:
                self._adopt_orphans(False)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # Raises if it is not ours.
        return pid

    def close(self) -> None:
        """Let the server end."""
        self._requests.close()

    def _adopt_orphans(self, wanted: bool) -> None:
        if self._libc.prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "this machine adopts no processes; set HEADRACE_TEST_EXECUTE=1")


class Forked(subprocess.Popen[Any]):
    """A child with these arguments; `more` are descriptors beside the standard ones, from 3 on."""

    def __init__(self, client: ForkClient, arguments: Sequence[str], *, more: Sequence[int] = (), **given: Any) -> None:
        self._client = client
        self._more = more
        super().__init__(list(arguments), **given)

    def _execute_child(self, *given: Any) -> None:
        asked = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        ends = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        try:
            self.pid = self._client.fork(
                {
                    "arguments": list(asked["args"]),
                    "folder": str(Path(asked["cwd"]).absolute()),
                    "environment": dict(asked["env"]),
                    "start_new_session": bool(asked["start_new_session"]),
                },
                [*(number if end == -1 else end for number, end in enumerate(ends)), *self._more],
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                *(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
            )


def fork_children_of_benches(client: Callable[[], ForkClient | None]) -> None:
    """Have the children of this process's benches forked, too, instead of executed, where there is who forks."""

    def execute(connection: int, memory_mb: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        forks = client()
        if forks is None:
            return executed(connection, memory_mb, environment)
        return Forked(
            forks, [BENCH, str(memory_mb)], more=[connection], cwd="/", env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    process.execute = execute
