"""Structured logs: JSON for machines, a console for people, one line never more than one line."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from domain.plain_text import escaped
from infrastructure.observability.scrubbing import scrubbed_field, scrubbed_lines

# What the library keeps there for itself.
_OURS = frozenset({"_record", "_from_structlog"})
# What has lines of its own, which people read as such.
_OF_LINES = frozenset({"exception", "stack"})
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")


def is_configured() -> bool:
    """Whether logs have been set up."""
    return structlog.is_configured()


def configure_logs(*, level: str, as_json: bool, service: str, version: str, environment: str) -> None:
    """Send structlog and the standard library's loggers through one chain to stderr."""
    constants = {"service": service, "version": version, "environment": environment}

    def add_constants(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**line, **constants}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any
    if as_json:
        shared.append(add_constants)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    # The last before the line is written: errors and their traces are text by then, and nothing is JSON yet.
    shared += [structlog.processors.format_exc_info, scrub]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Plain(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Uvicorn's access lines are replaced by our own; the driver of SQLite tells all values that it is given.
    for noisy, quieter in (("uvicorn.access", "CRITICAL"), ("alembic", "WARNING"), ("aiosqlite", "WARNING")):
        logging.getLogger(noisy).setLevel(quieter)


def scrub(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take secrets out of the fields of a line, and keep control characters from forging lines."""
    return {name: value if name in _OURS else _scrubbed(name, value) for name, value in line.items()}


def _scrubbed(name: str, value: Any) -> Any:
    return scrubbed_lines(value) if name in _OF_LINES and isinstance(value, str) else scrubbed_field(name, value)


class _Plain(structlog.stdlib.ProcessorFormatter):
    """Whatever a line was made of, what is not printable is escaped, but for colors on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if not sys.stderr.isatty():
            return escaped(line)
        parts = _COLOR.split(line)
        return "".join(part if number % 2 else escaped(part) for number, part in enumerate(parts))
