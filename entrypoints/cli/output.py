"""The one place that writes to the terminal: text of others, whatever it holds, does nothing to it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from domain.plain_text import escaped


def say(text: object = "", *, to_stderr: bool = False, end: str = "\n", flush: bool = False) -> None:
    """Print text, with what is not printable in it escaped."""
    print(escaped(str(text)), end=end, file=sys.stderr if to_stderr else sys.stdout, flush=flush)


def say_json(value: Any) -> None:
    """Print JSON for programs: letters as they are, and what is not printable as JSON escapes it."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def is_live() -> bool:
    """Whether a line of progress can be written over."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def say_over(text: str = "") -> None:
    """Write over the line of progress, or leave it."""
    print(f"\r\x1b[K{escaped(text)}", end="", file=sys.stderr, flush=True)
