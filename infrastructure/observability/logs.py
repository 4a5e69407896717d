"""Structured logs: JSON for machines, a console for people, one line never more than one line."""

import io
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from domain.plain_text import escaped, in_one_line

_SECRET_KEY = re.compile(r"password|passwd|secret|token|api_?key|authorization|credential|private_?key", re.IGNORECASE)
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")


def configure_logs(*, level: str, as_json: bool, service: str, version: str, environment: str) -> None:
    """Send structlog and the standard library's loggers through one chain to stderr."""
    constants = {"service": service, "version": version, "environment": environment}

    def add_constants(_logger: Any, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**line, **constants}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        scrub,
    ]
    renderer: Any
    if as_json:
        shared.append(add_constants)
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_no_locals)
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
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
    """Mask values whose key smells of a secret, and keep control characters from forging lines."""
    for key, value in line.items():
        if _SECRET_KEY.search(key):
            line[key] = "***"
        elif isinstance(value, str):
            line[key] = in_one_line(value)
    return line


class _Plain(structlog.stdlib.ProcessorFormatter):
    """Whatever a line was made of, what is not printable is escaped at the end, but for colors on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if not sys.stderr.isatty():
            return escaped(line)
        parts = _COLOR.split(line)
        return "".join(part if number % 2 else escaped(part) for number, part in enumerate(parts))


def _no_locals(sio: Any, exc_info: Any) -> None:
    found = io.StringIO()
    structlog.dev.plain_traceback(found, exc_info)
    sio.write(escaped(found.getvalue()))
