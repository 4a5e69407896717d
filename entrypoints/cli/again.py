"""Starts this program once more."""

import sys


def this_program(*arguments: str) -> list[str]:
    """The command; it imports nothing from the folder that it is started in, which may hold anything under any name."""
    return [sys.executable, "-P", "-m", "entrypoints.cli.main", *arguments]
