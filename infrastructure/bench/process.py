"""One child process as its parent sees it: started, asked, waited for until a deadline, and killed."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import PlatformError
from infrastructure.bench import asking
from infrastructure.bench.answers import UnreadableAnswerError, error_of_value, read
from infrastructure.bench.deadline import Deadline, StarvedError
from infrastructure.bench.frames import TooLongError, receive, send
from infrastructure.bench.loading import load

_START_SECONDS = 30.0
# A crash has other signals, and none of a child's limits ends it by these: the kernel that is short of memory does, or
# whoever stops all that belongs to this program.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_END_SECONDS = 5.0
_MEBIBYTE = 1024 * 1024
# Read by loaders and by the interpreter; all else, secrets above all, stays here.
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")
_QUIET = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONSAFEPATH": "1",
}


class ChildEndedError(Exception):
    """A child that is there no more, by what it did."""


class KilledError(Exception):
    """A child that somebody else has ended, by a signal, which says nothing of what it did."""


class OutgrownError(Exception):
    """A call that needs more memory than the child may take, or whose answer is too long."""


class OverdueError(Exception):
    """A call that is not done within its time, which is `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class CrashedError(Exception):
    """A bug of ours in a function: the error's type and place, as it may tell values."""


@dataclass(frozen=True)
class ChildLimits:
    """What a child may take; `seconds` is for one call, None where its caller watches it."""

    memory_mb: int
    seconds: float | None
    answer_mb: int = 100
    """The longest answer that is read, as it takes room in the parent too."""


class ChildProcess:
    """A child that has been started. One call at a time; `kill` may come from any thread."""

    def __init__(self, limits: ChildLimits, modules: Sequence[str]) -> None:
        self._limits = limits
        self._loads = 0
        self.is_spent = False
        self.worked_seconds = 0.0
        self.subject: object = None
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = execute(theirs.fileno(), limits.memory_mb, _environment())
            self.load(modules)
        except BaseException:
            self._connection.close()
            raise

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def load(self, modules: Sequence[str]) -> None:
        """Let it import these before its first call, whose time that is not."""
        self._send((None, load, (tuple(modules),), {}), until=None)
        self._loads += 1

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        answers: Callable[..., Any] | None,
        cpu_seconds: float | None,
    ) -> Any:
        """Have a function called, and wait for what it gives; it may work for `cpu_seconds` of the limits' seconds.

        Raises:
            PlatformError: what it has raised.
            ChildEndedError, KilledError, OutgrownError, OverdueError, StarvedError: the child is of no use any more.
            CrashedError: it has raised something else.
        """
        self.worked_seconds = 0.0
        self._get_ready()
        seconds = self._limits.seconds
        until = None if seconds is None else Deadline(seconds, self.pid)
        try:
            self._send((cpu_seconds or seconds, function, args, kwargs), until)
            return self._answer(until, answers)
        except TooLongError as error:
            raise OutgrownError("answer") from error
        except TimeoutError as error:
            if cpu_seconds is not None and cpu_seconds < (seconds or 0):
                raise StarvedError from error  # Had it worked, its timer would have ended it.
            raise OverdueError(seconds or 0) from error
        except UnreadableAnswerError as error:
            raise ChildEndedError from error
        except (EOFError, OSError) as error:
            if self._signal() == signal.SIGPROF:
                raise OverdueError(cpu_seconds or seconds or 0) from error
            raise self._ended() from error

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """End it and wait for its end."""
        self.kill()
        self._connection.close()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def _get_ready(self) -> None:
        """Wait until it has imported what it was started for, which says nothing of what it is asked."""
        try:
            while self._loads:
                self._answer(Deadline(_START_SECONDS, self.pid), None)
                self._loads -= 1
        except TimeoutError as error:
            raise StarvedError from error
        except UnreadableAnswerError as error:
            raise ChildEndedError from error
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> Exception:
        return KilledError() if self._signal() in _FROM_OUTSIDE else ChildEndedError()

    def _signal(self) -> int | None:
        """Which signal has ended it, where one has."""
        try:
            return -self._process.wait(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def _send(self, request: tuple[Any, ...], until: Deadline | None) -> None:
        aside: list[pickle.PickleBuffer] = []  # Rows are sent as they lie, and lie there as they came.
        pickled = pickle.dumps(request, protocol=5, buffer_callback=aside.append)
        send(self._connection, [pickled, *(buffer.raw() for buffer in aside)], until=until)

    def _answer(self, until: Deadline | None, answers: Callable[..., Any] | None) -> Any:
        while True:
            answer = read(receive(self._connection, most_bytes=self._limits.answer_mb * _MEBIBYTE, until=until))
            if not isinstance(answer, dict):
                raise UnreadableAnswerError("no answer")
            if "question" not in answer:
                return self._outcome(answer)
            send(self._connection, asking.answered(answers, tuple(answer["question"])), until=until)

    def _outcome(self, answer: dict[str, Any]) -> Any:
        self.is_spent = bool(answer.get("is_spent"))
        worked = answer.get("worked_seconds")
        self.worked_seconds = worked if isinstance(worked, float) else 0.0
        if "value" in answer:
            return answer["value"]
        if "error" in answer:
            raise _told(answer["error"])
        if "crashed" in answer:
            raise CrashedError(*(str(part)[:200] for part in answer["crashed"]))
        raise OutgrownError("memory")


def execute(connection: int, memory_mb: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a child that answers on a descriptor.

    It is not forked from here, as a fork of a process with threads may hang, and would hold this one's memory.
    """
    return subprocess.Popen(
        [sys.executable, "-s", "-m", "infrastructure.bench.child", str(connection), str(memory_mb)],
        env=environment,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[connection],
        start_new_session=True,
    )


def _told(value: Any) -> PlatformError:
    try:
        return error_of_value(value)
    except Exception as error:
        raise UnreadableAnswerError("no error") from error


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # The child finds what this process has found, whatever told it where: an installation, a variable, the way it was
    # started.
    return kept | _QUIET | {"PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)}
