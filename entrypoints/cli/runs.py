"""The runs there were and are: list, show, logs, watch, cancel, retry."""

from __future__ import annotations

from typing import Annotated

import typer

from domain.plain_text import in_one_line
from entrypoints.cli.context import Cli
from entrypoints.cli.ending import finish
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, listening, print_json, print_report, print_table, print_times

_LINE_HEAD = ("at", "event", "to")

app = typer.Typer(help="Runs that were asked for.", no_args_is_help=True)


@app.command("list")
def list_runs(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Option(help="Only runs of this pipeline.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    cli: Cli = context.obj
    with cli.client() as client:
        page = client.runs(pipeline=pipeline, limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    rows = [
        [run["id"], run["pipeline"], run["state"], run["attempt"], _time(run["created_at"]), run["reason"] or ""]
        for run in page["items"]
    ]
    print_table(["run", "pipeline", "state", "attempt", "asked for", "reason"], rows)
    if page["next_cursor"]:
        say(f"more with --cursor {page['next_cursor']}")


@app.command("show")
def show_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show a run: its report, its error, its history."""
    cli: Cli = context.obj
    with cli.client() as client:
        found, history = client.run(run_id), client.transitions(run_id)
    if as_json:
        print_json({**found, "transitions": history["items"]})
        return
    print_report(found)
    if found["error"]:
        say(f"error: {found['error']['message']} [{found['error']['code']}]")
    rows = [[_time(t["at"]), t["from"] or "", t["to"], t["fence"], t["reason"]] for t in history["items"]]
    print_table(["at", "from", "to", "fence", "reason"], rows, title="history")
    print_times(found)


@app.command("cancel")
def cancel_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Cancel a run: at once if it was never claimed, else at its next batch; committed batches stay."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.cancel(run_id)
    if as_json:
        print_json(found)
        return
    say(f"run {found['id']}: {'cancelled' if found['state'] == 'cancelled' else 'will stop at its next batch'}")


@app.command("retry")
def retry_run(
    context: typer.Context,
    run_id: str,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Forget what the run left unfinished; its committed rows stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a failed or cancelled run's pipeline again with the same wishes, and wait for its report."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.retry(run_id, abandon=abandon, listener=listening(f"retry of {run_id}"))
    finish(found, found["pipeline"], as_json=as_json)


@app.command("watch")
def watch_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Wait until a run is at its end, then show its report."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.wait_for(run_id)
    finish(found, found["pipeline"], as_json=as_json)


@app.command("logs")
def show_logs(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show a run's history and events as lines: who did what, when, under which fence, and why."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.logs(run_id)
    if as_json:
        print_json(found)
        return
    if "note" in found:
        say(found["note"])
    for line in found["items"]:
        fields = " ".join(f"{name}={in_one_line(str(value))}" for name, value in line.items() if name not in _LINE_HEAD)
        say(f"{line['at'][:23]}  {line['event']:<22} {fields}")


def _time(moment: str | None) -> str:
    return moment[:19].replace("T", " ") if moment else ""
