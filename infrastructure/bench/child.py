"""The child itself: `python -m infrastructure.bench.child`, limits first, then one call after the other until its
parent ends.
"""

import contextlib
import fcntl
import os
import pickle
import resource
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domain.errors import PlatformError
from infrastructure.bench import asking
from infrastructure.bench.answers import error_as_value, written
from infrastructure.bench.frames import receive, send
from infrastructure.clock import worked_seconds

_F_SETSIG = 10  # Linux
_MEBIBYTE = 1024 * 1024
_OUT_OF_MEMORY = ("OutOfMemoryException", "ArrowMemoryError")


def main(arguments: Sequence[str]) -> None:
    """Answer calls; the arguments are the connection's descriptor and how many MiB this process may take."""
    descriptor, memory_mb = (int(argument) for argument in arguments)
    _end_with_parent()
    _limit(memory_mb)
    requests = socket.socket(fileno=descriptor)
    asking.through(requests)
    with contextlib.suppress(EOFError, OSError):
        while True:
            request = receive(requests, most_bytes=sys.maxsize)
            begun = worked_seconds()
            answer = _answered(request)
            answer["worked_seconds"] = worked_seconds() - begun
            if _resident_bytes() > memory_mb * _MEBIBYTE // 2:
                answer["is_spent"] = True
            del request
            send(requests, _written(answer))


def _end_with_parent() -> None:
    """Die with the parent, whatever kills it and whatever runs here: the write end of standard input is its life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        # The kernel kills this process when the pipe's other end is closed; no code here has to notice.
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
        if not _is_open():
            os._exit(0)  # It ended before.
    else:
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _is_open() -> bool:
    os.set_blocking(0, False)
    try:
        return os.read(0, 1) != b""
    except BlockingIOError:
        return True


def _wait_for_end() -> None:
    os.read(0, 1)
    os._exit(0)


def _limit(memory_mb: int) -> None:
    sys.dont_write_bytecode = True
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_DATA, memory_mb * _MEBIBYTE),
    ]
    for kind, wanted in bounds:
        _, most = resource.getrlimit(kind)
        bound = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (bound, bound))


def _limit_cpu(seconds: float | None) -> None:
    """Let the kernel end this process when a call has worked for so long, whoever still watches it."""
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)


def _answered(request: list[bytearray]) -> dict[str, Any]:
    try:
        seconds, function, args, kwargs = pickle.loads(request[0], buffers=request[1:])
        _limit_cpu(seconds)
        try:
            return {"value": function(*args, **kwargs)}
        finally:
            _limit_cpu(None)
    except PlatformError as error:
        return {"error": error_as_value(error)}
    except (MemoryError, RecursionError):
        return {"outgrown": True}
    except Exception as error:  # noqa: BLE001 - told to the parent, which logs it
        if type(error).__name__ in _OUT_OF_MEMORY:
            return {"outgrown": True}
        return {"crashed": [type(error).__name__, _place(error)]}


def _written(answer: dict[str, Any]) -> list[bytes]:
    try:
        return written(answer)
    except (MemoryError, RecursionError):
        return written({"outgrown": True})
    except Exception as error:  # noqa: BLE001 - a result that has no form is a bug of ours
        return written({"crashed": [type(error).__name__, "the answer"]})


def _place(error: BaseException) -> str:
    """Where it was raised, without a value."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main(sys.argv[1:])
