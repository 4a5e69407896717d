"""What a server may send and how long it may be silent, where a driver gathers all that comes and waits for all that
does not.

libpq gives back control once it has a whole answer. So one thread looks at the sockets of those that wait, some times a
second, and hangs up on a server that goes too far: the driver finds the connection at its end, and its thread is free.
"""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakValueDictionary

from domain.errors import PlatformError, StoreRefusedError, StoreUnavailableError
from infrastructure.clock import monotonic
from infrastructure.stores.postgres.sockets import MARKS, Peer, peers

ANSWER_BYTES = 64 * 2**20
"""Of one answer to a statement of ours."""
CONNECTING_BYTES = 128 * 2**20
"""Of one connection while it is made: the driver reads the catalog then, a kilobyte of a table and 240 bytes of another
type.
"""

_TICK_SECONDS = 0.05
_REST_TICKS = 40
_TOGETHER_BYTES = 512 * 2**20
# A large catalog takes its time on both sides: a second more for each of these that came, so many at most.
_PACE_BYTES, _MOST_MORE_SECONDS = 2 * 2**20, 20.0
_CANCEL_BYTES, _CANCEL_SECONDS = 2**20, 5.0


def too_much(place: str, most: int) -> StoreRefusedError:
    """Say that an answer was longer than it may be."""
    return StoreRefusedError(
        f"{place} sent more than {most >> 20} MB where one answer was due, which is more than it may have; the "
        "connection was ended.",
        code="store.answer_too_large",
    )


class Watch(ABC):
    """One wait for a server: until it is over, so many bytes may come, in so many seconds if they are limited."""

    dials = False
    """Whether the sockets are not known before."""

    def __init__(self, place: str, most: int, seconds: float | None) -> None:
        self.why: PlatformError | None = None
        self.gathered = 0
        self._place, self._most, self._seconds = place, most, seconds
        self._is_over = False
        self._lock = threading.Lock()

    def look(self, found: Sequence[Peer], now: float) -> None:
        """See what has come, and hang up if that is too much or took too long."""
        with self._lock:
            if not self._is_over:
                self.why = self.why or self._judged(found, now)
                if self.why is not None:
                    self._hang_up(found)

    def give_up(self, why: PlatformError) -> None:
        """Hang up, at the next look at the latest."""
        with self._lock:
            if not self._is_over:
                self.why = self.why or why
                self._hang_up(())

    def end(self) -> None:
        """Let it be over. Unless it has been hung up on, it will not be any more.

        Raises:
            StoreRefusedError: too much came (`store.answer_too_large`).
            StoreUnavailableError: it took too long.
        """
        with self._lock:
            self._is_over = True
        if self.why is not None:
            raise self.why

    def _exceeded(self, received: int, seconds: float, more_seconds: float = 0.0) -> PlatformError | None:
        if received > self._most:
            return too_much(self._place, self._most)
        if self._seconds is not None and seconds > self._seconds + more_seconds:
            return StoreUnavailableError(
                f"{self._place} gave no whole answer for {seconds:.0f} s; the connection was ended."
            )
        return None

    @abstractmethod
    def _judged(self, found: Sequence[Peer], now: float) -> PlatformError | None:
        """Why to hang up."""

    @abstractmethod
    def _hang_up(self, found: Sequence[Peer]) -> None:
        """Let the driver find the connection at its end."""


class _Answering(Watch):
    """A wait on the connection that a line has."""

    def __init__(self, peer: Peer, place: str, most: int, seconds: float | None) -> None:
        super().__init__(place, most, seconds)
        self._peer = peer
        self._before, self._began_at = peer.received(), monotonic()

    def _judged(self, found: Sequence[Peer], now: float) -> PlatformError | None:
        self.gathered = self._peer.received() - self._before
        return self._exceeded(self.gathered, now - self._began_at)

    def _hang_up(self, found: Sequence[Peer]) -> None:
        self._peer.hang_up()


class _Dialing(Watch):
    """A wait for connections that are only being made, one after another, beside one that there may be."""

    dials = True

    def __init__(self, mark: int, besides: Peer | None, place: str, most: int, seconds: float) -> None:
        super().__init__(place, most, seconds)
        self._mark, self._beside = mark, besides.number if besides is not None else None
        self._first_seen: dict[int, float] = {}

    def _own(self, found: Sequence[Peer]) -> Iterator[Peer]:
        return (peer for peer in found if peer.mark == self._mark and peer.number != self._beside)

    def _judged(self, found: Sequence[Peer], now: float) -> PlatformError | None:
        self.gathered = 0
        for peer in self._own(found):
            received = peer.received()
            self.gathered += received
            age = now - self._first_seen.setdefault(peer.number, now)
            if why := self._exceeded(received, age, min(received / _PACE_BYTES, _MOST_MORE_SECONDS)):
                return why
        return None

    def _hang_up(self, found: Sequence[Peer]) -> None:
        for peer in self._own(found):
            peer.hang_up()


class _Canceling(_Dialing):
    """A wait for the connection by which a server is asked to stop, beside the one that it is asked of."""

    def __init__(self, beside: Peer, place: str) -> None:
        super().__init__(0, beside, place, _CANCEL_BYTES, _CANCEL_SECONDS)
        self.server = beside.server

    def _own(self, found: Sequence[Peer]) -> Iterator[Peer]:
        return (peer for peer in super()._own(found) if peer.server == self.server)


class _Watcher:
    """Looks at all that are waited for; its thread ends when for a while there was nobody."""

    def __init__(self) -> None:
        self._watches = set[Watch]()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @contextmanager
    def looking(self, watch: Watch) -> Iterator[None]:
        with self._lock:
            self._watches.add(watch)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="postgres-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watches.discard(watch)

    def _work(self) -> None:
        resting = 0
        while True:
            time.sleep(_TICK_SECONDS)
            with self._lock:
                watches = list(self._watches)
                resting = 0 if watches else resting + 1
                if resting > _REST_TICKS:
                    self._thread = None
                    return
            if watches:
                _look(watches)


def _look(watches: Sequence[Watch]) -> None:
    dialing = any(watch.dials for watch in watches)
    asked = {watch.server for watch in watches if isinstance(watch, _Canceling)}
    found = peers(MARKS, asked) if dialing else []
    now = monotonic()
    for watch in watches:
        watch.look(found if watch.dials else (), now)
    for peer in found:
        peer.close()
    if sum(watch.gathered for watch in watches) > _TOGETHER_BYTES:
        largest = max(watches, key=lambda watch: watch.gathered)
        largest.give_up(
            StoreUnavailableError(
                f"Answers of Postgres servers had more than {_TOGETHER_BYTES >> 20} MB together, so the largest was "
                "ended; try again with fewer at a time."
            )
        )


_WATCHER = _Watcher()
_LINES: "WeakValueDictionary[int, Line]" = WeakValueDictionary()
_MARKS = itertools.cycle(MARKS)
_MARKING = threading.Lock()


class Line:
    """The connection of one driver with a server, known by its mark, and the short ones by which it is asked to stop.

    Where the system cannot tell what a socket has received, and on sockets within the machine, nothing is watched.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._peer: Peer | None = None
        with _MARKING:
            marks = itertools.islice(_MARKS, len(MARKS))
            mark = next((mark for mark in marks if mark not in _LINES), None)
            if mark is None:
                raise StoreUnavailableError(f"There are {len(MARKS)} connections with Postgres servers already.")
            self.mark = mark
            _LINES[mark] = self

    def found(self) -> None:
        """Take the connection that has been made."""
        self.close()
        for peer in peers((self.mark,)):
            self.close()
            self._peer = peer

    @contextmanager
    def dialing(self, seconds: float, most: int = CONNECTING_BYTES) -> Iterator[None]:
        """Bound what comes on each connection that is made meanwhile, and how long it takes."""
        with self._watched(_Dialing(self.mark, self._peer, self._place, most, seconds)):
            yield

    @contextmanager
    def canceling(self) -> Iterator[None]:
        """Bound how long it takes to ask the server to stop, for which there is a connection beside this one."""
        if self._peer is None:
            yield
            return
        with self._watched(_Canceling(self._peer, self._place)):
            yield

    @contextmanager
    def answering(self, most: int = ANSWER_BYTES, seconds: float | None = None) -> Iterator[None]:
        """Bound an answer.

        Raises:
            StoreRefusedError: too much came (`store.answer_too_large`).
            StoreUnavailableError: it took too long.
        """
        if self._peer is None:
            yield
            return
        with self._watched(_Answering(self._peer, self._place, most, seconds)):
            yield

    @contextmanager
    def _watched(self, watch: Watch) -> Iterator[None]:
        with _WATCHER.looking(watch):
            try:
                yield
            except Exception as error:
                try:
                    watch.end()
                except PlatformError as why:
                    raise why from error
                raise
            watch.end()

    def hang_up(self) -> None:
        """Free whoever waits for the server."""
        if self._peer is not None:
            self._peer.hang_up()

    def close(self) -> None:
        """Let the connection go."""
        if self._peer is not None:
            self._peer.close()
        self._peer = None
