"""Where this layer writes its lines, and what it adds to all lines of a block."""

import structlog

log = structlog.get_logger("headrace")
bound = structlog.contextvars.bound_contextvars


def current_correlation_id() -> str | None:
    """The request that the caller is at work for, whatever process it came to first."""
    found: str | None = structlog.contextvars.get_contextvars().get("correlation_id")
    return found


def current_trace_id() -> str | None:
    """The trace that lines of the caller name."""
    found: str | None = structlog.contextvars.get_contextvars().get("trace_id")
    return found
