"""One thread per stream for drivers that block, so that the event loop never waits and a connection never moves."""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from domain.errors import UnavailableError
from domain.letting_go import ended

P = ParamSpec("P")
T = TypeVar("T")

_INTERRUPT_EVERY_SECONDS = 1.0
_GIVE_UP_AFTER_SECONDS = 10.0
_doing = threading.local()


def stop_if_unwanted() -> None:
    """For what may go on for long without an item: end it, if nobody waits for the call of this thread any more.

    Raises:
        UnavailableError: nobody does, nor will anybody see this.
    """
    while_wanted()()


def while_wanted() -> Callable[[], None]:
    """As `stop_if_unwanted`, for the call that this thread is at now, whichever thread asks later."""
    unwanted: threading.Event | None = getattr(_doing, "unwanted", None)

    def stop() -> None:
        if unwanted is not None and unwanted.is_set():
            raise UnavailableError("Nobody waits for this any more.", code="worker.busy")

    return stop


class OneThread:
    """Runs every call on the same thread, in order.

    `interrupt` makes the driver give up what it is doing. A driver that does not, since its peer has fallen silent, is
    left behind with its thread after a while: `is_abandoned` then says that nothing may be asked of it any more.
    `hang_up` ends its connection then, so that the thread is free some time.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any], threading.Event] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None
        self._last: Future[Any] | None = None
        self.interrupt: Callable[[], None] | None = None
        self.hang_up: Callable[[], None] | None = None
        self.is_abandoned = False

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function. A cancelled caller interrupts the driver, then waits for it to give up: a call that
        was left alone would go on using the connection.
        """
        future: Future[T] = Future()
        self._last = future
        unwanted = threading.Event()
        context = contextvars.copy_context()  # What is logged on the way belongs to whoever calls.
        self._calls.put((future, lambda: context.run(function, *args, **kwargs), unwanted))
        if self._thread is None:
            # A daemon: a thread that was left behind must not keep the process from its end.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        wrapped = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(wrapped)
        except asyncio.CancelledError:
            unwanted.set()
            giving_up = asyncio.create_task(self._give_up(wrapped))
            while not giving_up.done():
                # Two deadlines may pass at once: the second changes nothing for whoever is waited for.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({giving_up})
            raise

    async def _give_up(self, wrapped: "asyncio.Future[Any]") -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _GIVE_UP_AFTER_SECONDS
        while not wrapped.done() and loop.time() < deadline:
            if self.interrupt is not None:
                # In a thread of its own, as asking the other side to stop may block too.
                threading.Thread(target=self._interrupt, name=f"{self._name}-interrupt", daemon=True).start()
            await asyncio.wait([wrapped], timeout=_INTERRUPT_EVERY_SECONDS)
        if not wrapped.done():
            self.is_abandoned = True
            if self.hang_up is not None:
                self.hang_up()
            wrapped.cancel()
        elif not wrapped.cancelled():
            wrapped.exception()

    def _interrupt(self) -> None:
        with contextlib.suppress(Exception):  # What cannot be interrupted is waited for.
            if self.interrupt is not None:
                self.interrupt()

    async def iterate(
        self, items: Generator[T], *, ahead: int = 1, is_large: Callable[[T], bool] = lambda _: False
    ) -> AsyncGenerator[T, None]:
        """Yield a blocking generator's items, reading up to `ahead` of them before they are asked for, and none behind
        a large one; close it after.
        """
        waiting: asyncio.Queue[tuple[bool, T | None]] = asyncio.Queue(maxsize=ahead)

        def advance() -> tuple[bool, T | None]:
            for item in items:
                return True, item
            return False, None

        async def pump() -> None:
            while True:
                has_item, item = await self.call(advance)
                await waiting.put((has_item, item))
                if not has_item:
                    return
                if is_large(item):  # type: ignore[arg-type]
                    del item
                    await waiting.join()

        task = asyncio.create_task(pump())
        try:
            while True:
                getter = asyncio.create_task(waiting.get())
                try:
                    await asyncio.wait({getter, task}, return_when=asyncio.FIRST_COMPLETED)
                    if not getter.done() and task.done() and waiting.empty():
                        task.result()
                        return
                    has_item, item = await getter
                finally:
                    getter.cancel()
                if not has_item:
                    return
                yield item  # type: ignore[misc]
                del item
                waiting.task_done()
        finally:
            await ended(task)
            while not waiting.empty():
                waiting.get_nowait()
            if not self.is_abandoned:
                await self.call(items.close)

    def leave(self, last: Callable[[], None]) -> None:
        """Have the thread do something once it is free, for which nobody waits."""
        self._calls.put((Future(), last, threading.Event()))

    def close(self) -> None:
        """Let the thread end, after what it was asked before; nobody waits here for what it still does, with the whole
        loop.
        """
        self._calls.put(None)
        if self._thread is not None and (self._last is None or self._last.done()):
            self._thread.join()

    def _work(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            future, work, _doing.unwanted = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                future.set_exception(error)
            # Nothing of the call may outlive it here, such as rows or a connection in a traceback.
            del call, future, work
