"""Reads TOML that somebody else may have written: whatever is wrong with it is one sentence."""

import tomllib
from pathlib import Path
from typing import Any

_MOST_BYTES = 1024 * 1024


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file.

    Raises:
        ValueError: it cannot be read, is too large, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"has more than {_MOST_BYTES:,} bytes")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from error
    except ValueError as error:  # Numbers of more digits than Python reads.
        raise ValueError("is not TOML: it holds a number or a time that is too large") from error
