"""Stored pipelines: list, show, state, reset, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say, say_json
from entrypoints.cli.render import AsJson, print_cursor, print_json, print_table

app = typer.Typer(help="Stored pipelines.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The pipeline's name.")]


@app.command("list")
def list_pipelines(context: typer.Context, as_json: AsJson = False) -> None:
    """List pipelines by name."""
    cli: Cli = context.obj
    with cli.client() as client:
        page = client.documents("pipeline")
    if as_json:
        print_json(page)
        return
    rows = [
        [found["name"], found["revision"], found["document"]["destination"]["table"], found["document"].get("owner")]
        for found in page["items"]
    ]
    print_table(["pipeline", "revision", "table", "owner"], rows)


@app.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show a pipeline's stored document."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.document("pipeline", name)
    if as_json:
        print_json(found)
        return
    when = found["updated_at"][:19].replace("T", " ")
    say(f"revision {found['revision']}, by {found['updated_by']} at {when}")
    say_json(found["document"])


@app.command()
def state(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show position and watermark at the destination; asks a running headrace up."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.state(name)
    _show_state(found, as_json=as_json)


@app.command()
def reset(
    context: typer.Context,
    name: Name,
    to: Annotated[str | None, typer.Option(help="The watermark to go on from; without it, from the beginning.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget the unfinished load and move the watermark; rows at the destination stay."""
    cli: Cli = context.obj
    if not yes:
        where = f"from {to}" if to else "from the beginning"
        typer.confirm(
            f"{name} will read again {where}; rows that are already there are not removed. Go on?", abort=True
        )
    with cli.client() as client:
        found = client.reset(name, to)
    _show_state(found, as_json=as_json)


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a pipeline; its runs and the rows at the destination stay."""
    cli: Cli = context.obj
    if not yes:
        typer.confirm(f"Forget the pipeline {name}?", abort=True)
    with cli.client() as client:
        client.delete("pipeline", name)
    print_json({"deleted": name}) if as_json else say(f"forgot pipeline {name}")


def _show_state(found: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    say(f"{found['pipeline']}: {found['state']}, watermark {found['watermark'] or 'none'}")
    print_cursor(found)
    streams = found["streams"]
    assert isinstance(streams, list)
    rows = [
        [s["stream"], s["state"], s["seq"], ", ".join(s["position"] or ()), s["counts"]["read"], s["counts"]["used"]]
        for s in streams
    ]
    print_table(["stream", "state", "batches", "position", "read", "used"], rows)
