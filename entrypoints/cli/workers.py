"""The processes of the installation: list them, drain one."""

from __future__ import annotations

from typing import Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json, print_table

app = typer.Typer(help="Processes that serve and work.", no_args_is_help=True)


@app.command("list")
def list_workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the processes that were heard of lately, and how many rings wait in the queue."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.workers()
    if as_json:
        print_json(found)
        return
    rows = [
        [w["id"], " ".join(w["roles"]), w["host"], w["state"], w["running"], w["concurrency"], w["started_at"][:19]]
        for w in found["items"]
    ]
    print_table(["worker", "roles", "host", "state", "running", "of", "since"], rows)
    depth = found["queue_depth"]
    say(f"queue: {'cannot be reached' if depth is None else f'{depth:,} waiting'}")


@app.command()
def drain(
    context: typer.Context,
    worker_id: Annotated[str, typer.Argument(help="The worker's id, from headrace workers list.")],
    as_json: AsJson = False,
) -> None:
    """Ask a process to bring its runs to a checkpoint and to stop, as before a spot machine goes away."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.drain(worker_id)
    print_json(found) if as_json else say(f"worker {worker_id} will drain and stop")
