"""The end of a run as a report, a next command and an exit code."""

from __future__ import annotations

from typing import Any

import typer

from entrypoints.cli.output import say
from entrypoints.cli.render import print_json, print_report


def finish(found: dict[str, Any], name: str, *, as_json: bool) -> None:
    """Print a run's report and leave with the exit code that says how it ended."""
    if as_json:
        print_json(found)
    else:
        print_report(found)
    state = found["state"]
    if state == "succeeded":
        return
    error = found.get("error") or {}
    if error:
        say(f"error: {error['message']} [{error['code']}]", to_stderr=True)
    if state in ("queued", "running"):
        what = "stopped at a checkpoint" if state == "queued" else _unfinished(found.get("reason") or "")
        say(f"The run {what}. Go on with: headrace run {name}", to_stderr=True)
        raise typer.Exit(1 if state == "queued" else 3)
    say(f"See what was committed: headrace pipelines state {name}", to_stderr=True)
    raise typer.Exit(3 if error.get("retryable") or error.get("unavailable") else 1)


def _unfinished(reason: str) -> str:
    """Why a run is still running: only a destination that is away is told as that."""
    if reason == "sealing":
        return "is unfinished: its destination cannot be reached"
    if reason.startswith("sealing"):
        code = reason.partition(": ")[2]
        return f"is unfinished: its destination did not let late writers be stopped ({code})"
    return "is in the hands of another process"
