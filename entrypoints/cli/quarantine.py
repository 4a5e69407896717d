"""The rows that rules refused: look at them, and replay them once the cause is gone."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.ending import finish
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, listening, print_json, print_table

_SHOWN_CHARACTERS = 120

app = typer.Typer(help="Rows that rules refused.", no_args_is_help=True)

OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN_ID", help="Only what this run refused.")]


@app.command("list")
def list_refused(
    context: typer.Context,
    pipeline: str,
    state: Annotated[
        str | None, typer.Option(help="waiting, open, repaired, superseded or abandoned; all when left out.")
    ] = None,
    run: OfRun = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    as_json: AsJson = False,
) -> None:
    """List a pipeline's refused rows, oldest first, each with the reason and the row as it was read."""
    cli: Cli = context.obj
    state = _state(state)
    with cli.client() as client:
        found = client.refused(pipeline, state=state, run=run, limit=limit, cursor=cursor)
    if as_json:
        print_json(found)
        return
    rows = [
        [item["refused_at"][:19], item["run_id"], item["state"], item["reason"], _shown(item["record"])]
        for item in found["items"]
    ]
    print_table(["refused at", "run", "state", "reason", "row"], rows)
    if found["next_cursor"]:
        say(f"more with --cursor {found['next_cursor']}")


@app.command("replay")
def replay(context: typer.Context, pipeline: str, run: OfRun = None, as_json: AsJson = False) -> None:
    """Take the open refused rows through the pipeline's transforms and rules once more, and wait for the report.

    Rows that pass land and are marked as repaired in one transaction; the others stay as they are.
    """
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.replay(pipeline, run=run, listener=listening(pipeline))
    finish(found, pipeline, as_json=as_json)


def _state(given: str | None) -> str | None:
    from domain.errors import InvalidInputError
    from domain.loads.quarantine import RefusedState

    known = [state.value for state in RefusedState]
    if given is not None and given not in known:
        raise InvalidInputError(f"--state is one of {', '.join(known)}.", code="quarantine.state")
    return given


def _shown(record: dict[str, Any]) -> str:
    text = json.dumps(record, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
