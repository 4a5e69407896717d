"""The text of a W3C `traceparent`, read and written."""

import re
from dataclasses import dataclass

_TEXT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1


@dataclass(frozen=True)
class TraceParent:
    """A trace, a span of it, and whether the trace is kept."""

    trace_id: str
    span_id: str
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


def trace_parent(text: str | None) -> TraceParent | None:
    """Read it; None where it is not one. Later versions may say more after what is known."""
    found = _TEXT.fullmatch(text) if text is not None and len(text) <= 512 else None
    if found is None or (found["version"] == "00" and found["more"] is not None):
        return None
    return TraceParent(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))
