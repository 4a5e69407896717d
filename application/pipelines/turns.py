"""Who may make previews at a time, which take sessions and memory for as long as a source likes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from weakref import WeakValueDictionary

from domain.errors import UnavailableError
from domain.identity.principal import Principal


@dataclass(eq=False)
class _Count:
    """How many there are."""

    value: int = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        self.value += 1
        try:
            yield
        finally:
            self.value -= 1


@dataclass(eq=False)
class _Own:
    """The previews of one caller."""

    turn: asyncio.Semaphore
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    asked: _Count = field(default_factory=_Count)
    taken: _Count = field(default_factory=_Count)
    dry: _Count = field(default_factory=_Count)


class Turns:
    """Lets so many be made at a time, and a quarter fewer of one caller, whose others wait for a while.

    A dry run may take hours: there are a quarter as many, and one of a caller; the next one is told so at once.
    """

    def __init__(self, most: int, patience: timedelta) -> None:
        self._most = most
        self._most_of_one = most - most // 4
        self._most_dry = max(1, most // 4)
        self._patience_seconds = patience.total_seconds()
        self._taken, self._dry = _Count(), _Count()
        self._large = asyncio.Semaphore(1)
        self._own: WeakValueDictionary[tuple[str, str], _Own] = WeakValueDictionary()

    @asynccontextmanager
    async def one(self, caller: Principal, *, is_dry: bool) -> AsyncIterator[None]:
        """Be one of them.

        Raises:
            UnavailableError: there are as many as there may be (`worker.busy`).
        """
        own = self._own_of(caller)
        with ExitStack() as stack:
            self._check_room(own)
            if is_dry:
                self._check_dry(own)
                stack.enter_context(own.dry.one())
                stack.enter_context(self._dry.one())
            stack.enter_context(own.asked.one())
            async with self._waited(own.turn, f"{own.taken.value} previews that you asked for are being made already"):
                self._check_room(own)
                with own.taken.one(), self._taken.one():
                    yield

    @asynccontextmanager
    async def large(self, caller: Principal) -> AsyncIterator[None]:
        """Be the one that may have large rows in memory, which are there in many forms.

        Raises:
            UnavailableError: others have been for too long (`worker.busy`).
        """
        own, said = self._own_of(caller), "Previews of other large rows are being made"
        async with self._waited(own.large, said), self._waited(self._large, said):
            yield

    def _own_of(self, caller: Principal) -> _Own:
        new = _Own(asyncio.Semaphore(self._most_of_one))
        return self._own.setdefault((caller.organization, caller.subject), new)

    def _check_room(self, own: _Own) -> None:
        if own.asked.value > 2 * self._most:
            raise _busy(f"{own.asked.value} previews that you asked for are being made or wait already")
        if self._taken.value >= self._most:
            raise _busy(f"{self._most} previews are being made already, {own.taken.value} of them for you")

    def _check_dry(self, own: _Own) -> None:
        if own.dry.value:
            raise _busy("A dry run that you asked for is being made already")
        if self._dry.value >= self._most_dry:
            raise _busy(f"{self._most_dry} dry runs of others are being made already, and there may be no more")

    @asynccontextmanager
    async def _waited(self, turn: asyncio.Semaphore, said: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_seconds):
                await turn.acquire()
        except TimeoutError as error:
            raise _busy(said) from error
        try:
            yield
        finally:
            turn.release()


def _busy(said: str) -> UnavailableError:
    return UnavailableError(f"{said}: try again when one of them is done.", code="worker.busy")
