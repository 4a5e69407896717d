"""Where this layer writes its lines, and what it adds to all lines of a block."""

import structlog

log = structlog.get_logger("headrace")
bound = structlog.contextvars.bound_contextvars
