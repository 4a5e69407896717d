"""Forks Headrace's processes from one that has imported the program, so that each starts in milliseconds, not in a
second.

`tests/program.py` starts this server and asks it. A child is a process of its own: its own pid, folder, environment and
files, and it dies alone. Nothing but modules is loaded here: no thread, event loop, connection or file of the program.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import application
import domain
import entrypoints
import infrastructure
from infrastructure.bench.child import main as bench_child
from tests.forked import BENCH, ForkClient, fork_children_of_benches

# What the program imports while it works, beside its own modules.
_LATER = (
    "adbc_driver_postgresql.dbapi",
    "aiokafka",
    "alembic.command",
    "asyncpg",
    "duckdb",
    "mako.template",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.instrumentation.aiokafka",
    "opentelemetry.instrumentation.redis",
    "opentelemetry.instrumentation.sqlalchemy",
    "opentelemetry.instrumentation.urllib3",
    "pyarrow.csv",
    "pyarrow.parquet",
    "redis.asyncio",
    "rich.console",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "typer._adapters",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)


def load() -> None:
    """Import the whole program."""
    for package in (domain, application, infrastructure, entrypoints):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations." not in found.name:
                importlib.import_module(found.name)
    for name in _LATER:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # Else a child's first collection copies every page that it shares.


def serve(requests: socket.socket) -> list[str]:
    """Answer requests with pids until the tests are gone; returns in each child, with its arguments."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        if not message:
            os._exit(0)
        asked = json.loads(message)
        answer, say = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child == 0:
                return _become(asked, files)
            os.write(say, str(child).encode())
            os._exit(0)  # The child is an orphan now, and the tests adopt it.
        pid = os.read(answer, 20)
        os.waitpid(between, 0)
        for file in (answer, say, *files):
            os.close(file)
        requests.send(pid)


def _become(asked: dict[str, object], files: list[int]) -> list[str]:
    """Take the folder, the environment and the standard streams that were asked for; nothing else stays open."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(len(files), os.sysconf("SC_OPEN_MAX"))
    if asked["start_new_session"]:
        os.setsid()
    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    time.tzset()
    sys.path[0] = str(Path.cwd())
    return list(asked["arguments"])  # type: ignore[call-overload]


def _live(arguments: list[str]) -> NoReturn:
    """Be the program, or a child of its bench."""
    if arguments[:1] == [BENCH]:
        # What is loaded here beside what a child needs is no part of what it may take.
        bench_child(["3", str(int(arguments[1]) + _data_megabytes())])
        os._exit(0)
    own = _fork_server_of_its_own()
    fork_children_of_benches(lambda: own)
    _be_the_program(arguments)


def _data_megabytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmData:")[2].split()[0]) // 1024


def _fork_server_of_its_own() -> ForkClient:
    """Fork another server while there is but one thread, so that the program's benches get their children
    as quickly.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.setsid()
        _live(serve(theirs))
    theirs.close()
    return ForkClient(ours)


def _be_the_program(arguments: list[str]) -> NoReturn:
    """Be the program: its threads are joined, its exit handlers run and its streams are flushed as at any other end.

    Only the memory is not taken apart piece by piece, which takes longer than most commands do.
    """
    from entrypoints.cli.main import __file__ as program
    from entrypoints.cli.main import main

    sys.argv = [program, *arguments]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    __package__ = "entrypoints.cli"  # Usage lines name the program by it.
    load()
    _live(serve(socket.socket(fileno=int(sys.argv[1]))))
