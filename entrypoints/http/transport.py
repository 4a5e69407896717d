"""What a connection may cost before there is a request: uvicorn's protocol with deadlines, a bounded head and a number
of connections.
"""

import json
import re
from asyncio import TimerHandle, Transport
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from entrypoints.http.asking import Asking, without_rest
from entrypoints.http.pace import AT_ONCE, Pace, Reading
from entrypoints.log import log

_ABSOLUTE = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)
_MOST_IN_A_ROW = 16
"""Requests that a client may send before the first of them is answered."""
_MOST_BEHIND = 256 * 1024
_MOST_READ_ON = 64
"""Of so many connections more is read of what stands behind a request: that they were left stands behind all of it."""


@dataclass(frozen=True)
class TransportLimits:
    """How long a client may take, how large a head is, and how many connections there are."""

    header_seconds: float = 10
    body_seconds: float = 60
    answer_seconds: float = 60
    header_bytes: int = 32 * 1024
    headers: int = 100
    connections: int = 512
    untaken_bytes: int = 128 * 1024 * 1024


@dataclass(frozen=True)
class _Shared:
    """What the connections of a server know of each other."""

    limits: TransportLimits
    waiting: "OrderedDict[BoundedProtocol, None]" = field(default_factory=OrderedDict)
    """Connections of which nobody waits for an answer, or takes it; the one that has been so for longest first."""
    arriving: "set[BoundedProtocol]" = field(default_factory=set)
    """Connections that have been let in, and that the loop has not made yet."""
    held: "set[BoundedProtocol]" = field(default_factory=set)
    """Connections of which something waits behind a request."""
    pace: Pace = field(default_factory=Pace)

    def is_beyond(self, connections: int, places: int) -> bool:
        """Whether one more would be more than the limit and so many."""
        return connections + len(self.arriving) >= self.limits.connections + places


def protocol_within(limits: TransportLimits) -> "type[BoundedProtocol]":
    """Make the protocol of one server."""
    return type("Protocol", (BoundedProtocol,), {"shared": _Shared(limits)})


def refusal_of_one_more() -> bytes:
    """What a connection is told for which there is no room."""
    return _answer(503, "server.connections", "There are too many connections.", "Retry-After: 5\r\n")


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Its times are those of the whole head and the whole body: a byte now and then does not prolong
    them.
    """

    shared: _Shared

    @classmethod
    def has_room(cls, connections: int, asking: Asking) -> bool:
        """Say whether one more may come, if need be for one of which nothing is asked."""
        return not cls.shared.is_beyond(connections, asking.beyond) or bool(cls.shared.waiting)

    def __init__(self, *given: Any, asking: Asking, **named: Any) -> None:
        super().__init__(*given, **named)
        self._asking = asking
        self._limits = self.shared.limits
        self._deadline: TimerHandle | None = None
        self._leaving: TimerHandle | None = None
        self._is_in_head = True
        self._head_bytes = self._beside_body = 0
        self._is_refused = self._is_beyond = False
        self._unparsed, self._parsed = b"", 0
        self._working: RequestResponseCycle | None = None

    def take_place(self) -> None:
        """Count among the connections from now on; where there is room for no more, in the place of another."""
        connections = len(self.connections)
        # Of a probe that comes beyond the limit one request is answered.
        self._is_beyond = self._asking is not Asking.WORK and self.shared.is_beyond(connections, 0)
        if self.shared.is_beyond(connections, self._asking.beyond) and self.shared.waiting:
            longest = next(iter(self.shared.waiting))  # Who asks for nothing gives the place to who may.
            longest._is_refused = True
            longest._give_up_place()
            longest.transport.abort()
        self.shared.arriving.add(self)

    def connection_made(self, transport: Any) -> None:
        self.shared.arriving.discard(self)
        super().connection_made(transport)
        self._reading = Reading(transport)
        self.flow = FlowControl(cast(Transport, self._reading))
        self._begin(self._limits.header_seconds)
        if self._asking is Asking.WORK:  # The request of a probe is here, so that it has no time to be ended in.
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.shared.arriving:  # It left before it was made.
            self.shared.arriving.remove(self)
            return
        self._cancel()
        self._reading.close()
        if self._leaving is not None:
            self._leaving.cancel()
        self.shared.waiting.pop(self, None)
        self.shared.held.discard(self)
        super().connection_lost(exc)
        if self._working is not None and self._working is not self.cycle:
            # Behind it stand others that the client sent before it left, and uvicorn tells the last of them only.
            self._working.disconnected = True
            self._working.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._is_refused or (self._is_beyond and self._working is not None):
            return
        if self._is_beyond:
            data = without_rest(data)  # What stands behind its request is neither parsed nor kept.
        self._unset_keepalive_if_required()
        is_behind = bool(self._unparsed)
        self._unparsed += data
        if not is_behind:
            self.shared.pace.parse(self, is_first=self._asking is not Asking.WORK)
            self._asking = Asking.WORK
        if self._unparsed and not self._reads_on:
            self._reading.pause_reading("parsing")

    def parse_some(self) -> bool:
        """Parse a part of what has come, and say whether there is more that may be parsed now. What comes behind a
        request waits for its answer as it came: a head that is parsed takes seven times the room.
        """
        self.shared.held.discard(self)
        if self._has_request and self._is_in_head and not self.transport.is_closing():
            self.shared.held.add(self)
            if self._reads_on:
                self._reading.resume_reading("parsing")
            return False
        part = self._unparsed[self._parsed : self._parsed + AT_ONCE]
        self._parsed += len(part)
        if self.parser is not None and not self.transport.is_closing():
            self._feed(part)
            if self._parsed < len(self._unparsed) and not self._is_refused:
                return True
        self._unparsed, self._parsed = b"", 0
        self._reading.resume_reading("parsing")
        return False

    @property
    def _reads_on(self) -> bool:
        held = self.shared.held
        return self in held and len(held) <= _MOST_READ_ON and len(self._unparsed) < _MOST_BEHIND

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._begin(self._limits.header_seconds)
        else:
            self._beside_body += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # Nothing is spoken here but HTTP, in which the request is answered.
        except httptools.HttpParserError as error:
            if not isinstance(error.__context__, _RefusedError):
                self._refuse(400, "request.malformed", "This is no request of HTTP/1.1.")
            return
        if self._is_in_head and self._head_bytes > self._limits.header_bytes:
            self._refuse_head()
        elif not self._is_in_head and self._beside_body > self._limits.header_bytes:
            self._refuse_head()  # Fields behind the body, which the parser gathers until their ends, or of a chunk.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if len(self.pipeline) >= _MOST_IN_A_ROW:
            self._refuse(400, "request.malformed", "Too many requests were sent before the first was answered.")
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # What comes behind a body is no header of its request.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.header_bytes or len(self.headers) > self._limits.headers:
            self._refuse_head()
            raise _RefusedError
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(505, "request.version", "Send requests of HTTP/1.1.")
            raise _RefusedError
        self._take_host_of_target()
        self._is_in_head = False
        self.shared.waiting.pop(self, None)
        self._begin(self._limits.body_seconds)
        super().on_headers_complete()
        if self._is_beyond or self.parser.should_upgrade():
            self.cycle.keep_alive = False  # Of what comes behind a wish for another protocol nothing is parsed.

    def _take_host_of_target(self) -> None:
        """A target may name its host itself, which then stands for what the header says (RFC 9112, 3.2.2)."""
        if self.url.startswith(b"/") or self.url == b"*":
            return
        found = _ABSOLUTE.match(self.url)
        if found is None:
            self._refuse(400, "request.malformed", "The target of a request is a path, or a URL of HTTP.")
            raise _RefusedError
        # Two headers stay two, which are refused.
        self.headers[:] = [(name, found[1] if name == b"host" else value) for name, value in self.headers]

    def on_body(self, body: bytes) -> None:
        self._beside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._cancel()
        self._is_in_head, self._head_bytes, self._beside_body = True, 0, 0
        if self.cycle.response_complete:  # Before its body came, which ended the time that uvicorn gave then.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait()  # For the client to take what it was sent.
            self._leave()
        elif not self._has_request:
            self._wait()
            if self in self.shared.held:
                self.shared.pace.parse(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait()
        self._leave()
        self._make_room()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._has_request:
            self.shared.waiting.pop(self, None)
        if self._leaving is not None and not self.transport.is_closing():
            self._leaving.cancel()
            self._leaving = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._working = cycle
        super()._start_asgi_task(cycle, app)

    def _wait(self) -> None:
        """Stand behind the others of whom nothing is asked, unless it is gone."""
        if self in self.connections:
            self.shared.waiting[self] = None
            self.shared.waiting.move_to_end(self)

    def _make_room(self) -> None:
        """Answers that clients do not take have so much memory together: who waits to take theirs for longest is left
        first.
        """
        untaken = {
            each: each.transport.get_write_buffer_size() for each in self.shared.waiting if each.flow.write_paused
        }
        excess = sum(untaken.values()) - self._limits.untaken_bytes
        for each, size in untaken.items():
            if excess <= 0 or each is self:
                return
            each._is_refused = True
            each.transport.abort()
            excess -= size

    def _begin(self, seconds: float) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _leave(self) -> None:
        """Give the client a time to take what it was sent."""
        if self._leaving is None:
            self._leaving = self.loop.call_later(self._limits.answer_seconds, self.transport.abort)

    def _too_slow(self) -> None:
        if self._is_in_head and self._has_request:  # The next one is begun, that before has its answer to come.
            self._begin(self._limits.header_seconds)
            return
        what = "head" if self._is_in_head else "body"
        seconds = self._limits.header_seconds if self._is_in_head else self._limits.body_seconds
        self._refuse(408, "request.slow", f"The {what} of the request took longer than {seconds:g} seconds.")

    def _give_up_place(self) -> None:
        """Count no more, while the loop still has the connection."""
        self.shared.waiting.pop(self, None)
        self.connections.discard(self)

    def _refuse_head(self) -> None:
        sentence = (
            f"The line and headers of a request have at most {self._limits.header_bytes:,} bytes and "
            f"{self._limits.headers} headers."
        )
        self._refuse(431, "request.headers_too_large", sentence)

    def _refuse(self, status: int, code: str, sentence: str) -> None:
        """Answer, unless an answer is on its way, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._cancel()
        if not self._has_request:
            is_silent = status == 408 and not self._head_bytes  # A connection on which nothing was begun is no request.
            if not is_silent:
                log.info("http.refused", status=status, code=code)
                self.transport.write(_answer(status, code, sentence))
        elif not self.pipeline and not self.cycle.response_started:
            self.transport.write(_answer(status, code, sentence))
            self.cycle.disconnected = True  # Whoever works on it, and logs it, hears that nobody waits for it any more.
            self.cycle.message_event.set()
        self.transport.close()
        self._wait()
        self._leave()


class _RefusedError(Exception):
    """Ends the parsing of what was answered already."""


def _answer(status: int, code: str, sentence: str, more: str = "") -> bytes:
    body = {
        "type": f"urn:headrace:{code}",
        "title": code.replace(".", " ").replace("_", " "),
        "status": status,
        "code": code,
        "detail": sentence,
        "request_id": None,
        "errors": [],
    }
    content = json.dumps(body).encode()
    head = (
        f"Content-Type: application/problem+json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n"
        f"X-Content-Type-Options: nosniff\r\n{more}\r\n"
    )
    return STATUS_LINE[status] + head.encode() + content
