"""The one place that writes to the terminal: text of others, whatever it holds, does nothing to it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from domain.plain_text import escaped, in_one_line


def say(text: object = "", *, to_stderr: bool = False, end: str = "\n", flush: bool = False) -> None:
    """Print a line, with what is not printable in it escaped: a name or a value in it begins none of its own."""
    print(in_one_line(str(text)), end=end, file=sys.stderr if to_stderr else sys.stdout, flush=flush)


def say_lines(text: str) -> None:
    """Print text of ours that has lines."""
    print(escaped(text), end="" if text.endswith("\n") else "\n")


def say_json(value: Any) -> None:
    """Print JSON for programs: letters as they are, and what is not printable as JSON escapes it."""
    say_lines(json.dumps(value, indent=2, ensure_ascii=False))


def is_live() -> bool:
    """Whether a line of progress can be written over."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def say_over(text: str = "") -> None:
    """Write over the line of progress, or leave it."""
    print(f"\r\x1b[K{in_one_line(text)}", end="", file=sys.stderr, flush=True)
