"""A few warm children that calls take turns on: bounded in number, in who waits, in memory and in time."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from domain.errors import PlatformError, UnavailableError
from domain.ports.security import Cost
from infrastructure.bench.deadline import StarvedError
from infrastructure.bench.in_process import Calls
from infrastructure.bench.process import (
    ChildEndedError,
    ChildLimits,
    ChildProcess,
    CrashedError,
    KilledError,
    OutgrownError,
    OverdueError,
)
from infrastructure.clock import monotonic
from infrastructure.log import log

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_SECONDS = 30.0


class _Call:
    """One call on its way: whoever made it may give it up from another thread."""

    def __init__(
        self, answers: Callable[..., Any] | None, cpu_seconds: float | None = None, cost: Cost | None = None
    ) -> None:
        self.answers = answers
        self.cpu_seconds = cpu_seconds
        self.cost = cost or Cost()
        self._guard = threading.Lock()
        self._child: ChildProcess | None = None
        self.is_given_up = False

    @property
    def is_light(self) -> bool:
        """It takes little, so that it need not wait behind what may take long."""
        return self.cpu_seconds is not None

    def give_up(self) -> None:
        with self._guard:
            self.is_given_up = True
            if self._child is not None:
                self._child.kill()

    def on(self, child: ChildProcess | None) -> bool:
        """Say which child works on it from now on; False if it was given up before."""
        with self._guard:
            self._child = child
            return not self.is_given_up


class Bench(Calls):
    """Calls functions in children.

    A child starts when it is first needed, or by `warm`, and is kept. One that was outgrown, overdue or broken is
    ended, and another takes its place, which also tries once more what one did that somebody else has killed. Where one
    is kept warm, it has imported `modules` before it is asked. `refused` makes an error of ours of what became of a
    call, which is memory, answer, time or end: a sentence that a person can act on.
    """

    def __init__(
        self,
        limits: ChildLimits,
        refused: Callable[[str, ChildLimits], PlatformError],
        *,
        children: int = 2,
        queue: int = 32,
        modules: Sequence[str] = (),
    ) -> None:
        self.limits = limits
        self._refused = refused
        self._most = children
        self._queue = queue
        self._modules = modules
        self._idle: list[ChildProcess] = []
        self._working: set[ChildProcess] = set()
        self._admitted = {True: 0, False: 0}
        self._heavy = 0
        self._is_closed = False
        self._is_kept_warm = False
        self._changed = threading.Condition()
        self._threads: ThreadPoolExecutor | None = None

    def warm(self) -> None:
        """Have a child ready for the next call, now and after each failure; does not wait for it."""
        self._is_kept_warm = True
        self._start_one_more()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function and wait for it.

        Raises:
            PlatformError: what it has raised, what `refused` says, `worker.busy` or `worker.killed`.
        """
        return self._called(_Call(None), function, args, kwargs)

    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`; a caller that is cancelled ends the child that works for it."""
        return await self.acall_answering(None, function, *args, **kwargs)

    async def acall_answering(
        self, answers: Callable[..., Any] | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `acall`, for a function that asks: `answers` is called with the question, in a thread."""
        return await self._acalled(_Call(answers), function, args, kwargs)

    def within(self, cpu_seconds: float) -> "Within":
        """This bench for what takes little: a call may work for so long."""
        return Within(self, cpu_seconds)

    def counting(self, cost: Cost) -> "Within":
        return Within(self, None, cost)

    def _called(self, call: _Call, function: Callable[..., T], args: Sequence[Any], kwargs: dict[str, Any]) -> T:
        self._admit(call)
        result: T = self._run(call, function, args, kwargs)
        return result

    async def _acalled(self, call: _Call, function: Callable[..., T], args: Sequence[Any], kwargs: dict[str, Any]) -> T:
        self._admit(call)
        future = asyncio.get_running_loop().run_in_executor(self._pool(), self._run, call, function, args, kwargs)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            call.give_up()
            with self._changed:
                self._changed.notify_all()  # It may wait for a child.
            future.add_done_callback(_heard)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
            raise

    def let_go(self, needed: int) -> None:
        """End children that nobody needs any more, beyond so many."""
        with self._changed:
            count = max(0, min(len(self._idle), len(self._idle) + len(self._working) - needed))
            gone, self._idle = self._idle[:count], self._idle[count:]
        for child in gone:
            child.close()

    async def close(self) -> None:
        """End all children; calls that are being made fail."""
        with self._changed:
            self._is_closed = True
            children = [*self._idle, *self._working]
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for child in children:
            child.kill()
        for child in idle:
            child.close()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)

    @property
    def pids(self) -> list[int]:
        """The children there are."""
        with self._changed:
            return [child.pid for child in (*self._idle, *self._working)]

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._most + self._queue, "bench")
        return self._threads

    def _admit(self, call: _Call) -> None:
        """Let a call in; what may take long has three quarters of the queue, so that the rest goes on beside it."""
        with self._changed:
            most = self._most + self._queue
            is_full = not call.is_light and self._admitted[False] >= max(1, most * 3 // 4)
            if self._is_closed or is_full or sum(self._admitted.values()) >= most:
                raise _busy()
            self._admitted[call.is_light] += 1

    def _has_room(self, call: _Call) -> bool:
        """Whether there is a child to be had; what may take long leaves one to the rest."""
        is_open = call.is_light or self._heavy < max(1, self._most - 1)
        return is_open and len(self._working) < self._most

    def _run(self, call: _Call, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        try:
            try:
                return self._tried(call, function, args, kwargs)
            except KilledError:
                if not (call.is_given_up or self._is_closed):
                    log.warning("bench.killed", function=function.__name__)
                return self._tried(call, function, args, kwargs)
        except KilledError as error:
            raise _killed() from error
        finally:
            with self._changed:
                self._admitted[call.is_light] -= 1
                self._changed.notify_all()

    def _tried(self, call: _Call, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        child = self._taken(call, function.__module__, args[0] if args else None)
        is_sound = False
        try:
            result = child.call(function, args, kwargs, call.answers, call.cpu_seconds) if call.on(child) else None
            is_sound = not child.is_spent
            return result
        except PlatformError:
            is_sound = not child.is_spent
            raise
        except CrashedError as error:
            log.error("bench.crashed", function=function.__name__, error=error.args[0], place=error.args[-1])
            raise PlatformError(f"Something unexpected failed ({error.args[0]}); the log has the details.") from error
        except OutgrownError as error:
            raise self._refused(str(error), self.limits) from error
        except OverdueError as error:
            raise self._refused("time", replace(self.limits, seconds=error.seconds)) from error
        except StarvedError as error:
            raise _starved() from error
        except ChildEndedError as error:
            raise self._refused("end", self.limits) from error
        finally:
            call.on(None)
            call.cost.seconds += child.worked_seconds
            self._leave(call, child, is_sound=is_sound and not call.is_given_up)

    def _taken(self, call: _Call, module: str, subject: object) -> ChildProcess:
        """Take a child that waits for work, or start one; wait for a place. One that worked on the same is better."""
        until = monotonic() + _WAIT_SECONDS
        with self._changed:
            while not self._has_room(call):
                if call.is_given_up or self._is_closed or not self._changed.wait(until - monotonic()):
                    raise _busy()
            if call.is_given_up or self._is_closed:
                raise _busy()
            child = None
            while self._idle and child is None:
                same = [place for place, one in enumerate(self._idle) if one.subject is subject]
                child = self._idle.pop(same[0] if same else -1)
                if not child.is_alive:
                    child.close()
                    child = None
            if child is None:
                child = self._started()
                child.load((module,))
            child.subject = subject
            self._working.add(child)
            self._heavy += not call.is_light
            return child

    def _leave(self, call: _Call, child: ChildProcess, *, is_sound: bool) -> None:
        with self._changed:
            self._working.discard(child)
            self._heavy -= not call.is_light
            is_kept = is_sound and not self._is_closed
            if is_kept:
                self._idle.append(child)
            self._changed.notify_all()
        if not is_kept:
            child.close()
            if self._is_kept_warm:
                self._start_one_more()

    def _start_one_more(self) -> None:
        with self._changed, contextlib.suppress(PlatformError):  # Without one, the next call starts it and tells.
            if not (self._is_closed or self._idle or self._working):
                self._idle.append(self._started())

    def _started(self) -> ChildProcess:
        try:
            return ChildProcess(self.limits, self._modules if self._is_kept_warm else ())
        except OSError as error:
            raise UnavailableError(
                f"No process can be started to look at this ({error.strerror}): try again, and see whether this "
                "machine is short of memory or processes.",
                code="worker.busy",
            ) from error


class Within(Calls):
    """A bench for what takes little: calls end earlier, and need not wait behind those that take long. With no
    `cpu_seconds`, all the time of the bench.
    """

    def __init__(self, bench: Bench, cpu_seconds: float | None, cost: Cost | None = None) -> None:
        self._bench = bench
        self._cpu_seconds = cpu_seconds
        self._cost = cost

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._bench._called(_Call(None, self._cpu_seconds, self._cost), function, args, kwargs)

    async def acall(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.acall_answering(None, function, *args, **kwargs)

    async def acall_answering(
        self, answers: Callable[..., Any] | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As that of the bench."""
        return await self._bench._acalled(_Call(answers, self._cpu_seconds, self._cost), function, args, kwargs)

    def counting(self, cost: Cost) -> "Within":
        return Within(self._bench, self._cpu_seconds, cost)


def _heard(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


def _starved() -> UnavailableError:
    return UnavailableError(
        "The process that looks at queries, steps and files had too little of this machine's time: try again when the "
        "machine has less to do.",
        code="worker.busy",
    )


def _killed() -> UnavailableError:
    return UnavailableError(
        "The process that looks at queries, steps and files was killed from outside, twice: see whether this machine, "
        "or what bounds this program in it, is short of memory, and try again.",
        code="worker.killed",
    )


def _busy() -> UnavailableError:
    return UnavailableError(
        "Too many queries and documents are being looked at already: try again in a moment.", code="worker.busy"
    )
