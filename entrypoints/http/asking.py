"""What a connection asks for first, by which it is let in: probes before all else, and for these there is room beyond
all else.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

_LIVENESS, _METRICS = "/health", "/metrics"
_KEYLESS = (_LIVENESS, "/ready")
_END = b"\r\n\r\n"


class Asking(Enum):
    """Who is let in first stands first. `beyond` are the connections that there may be for it beyond the limit: whoever
    asks whether parts are ready may wait for these, and keeps nobody from hearing that the process lives.
    """

    LIVENESS = "liveness"
    PROBE = "probe"
    WORK = "work"

    @property
    def beyond(self) -> int:
        """Places beyond the limit that may be taken for it."""
        return _BEYOND[self]


_BEYOND: Mapping[Asking, int] = {Asking.LIVENESS: 32, Asking.PROBE: 16, Asking.WORK: 0}
MOST_BEYOND = max(_BEYOND.values())


def asked_first(beginning: bytes) -> Asking:
    """Say what a connection asks for by its first bytes, among which is the whole head of a probe."""
    head, end, _ = beginning.partition(_END)
    line, _, fields = head.partition(b"\r\n")
    method, _, target = line.partition(b" ")
    if not end or method != b"GET":
        return Asking.WORK
    names = (field.partition(b":")[0].lower() for field in fields.split(b"\r\n"))
    path = target.partition(b" ")[0].decode("latin-1")
    if not is_probe({"path": path, "headers": [(name, b"") for name in names]}):
        return Asking.WORK
    return Asking.LIVENESS if path == _LIVENESS else Asking.PROBE


def is_probe(scope: Any) -> bool:
    """Say whether a request is a probe. Numbers that are asked for with a key are work: a key is looked up in the
    records.
    """
    path = scope["path"]
    return path in _KEYLESS or (path == _METRICS and all(name != b"authorization" for name, _ in scope["headers"]))


def without_rest(beginning: bytes) -> bytes:
    """Keep the head of a request, and nothing that stands behind it."""
    head, end, _ = beginning.partition(_END)
    return head + end
