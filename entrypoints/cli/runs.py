"""The runs there were and are: list, show, logs, watch, cancel, retry."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from domain.plain_text import in_one_line
from entrypoints.cli.context import Cli
from entrypoints.cli.ending import finish
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, as_plain, end_progress, print_json, print_report, print_table, progress_line

if TYPE_CHECKING:
    from entrypoints.use_cases import UseCases

_WATCH_EVERY_SECONDS = 0.2
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
    from entrypoints.answers.cursors import cursor_of, place_of

    cli: Cli = context.obj
    organization = cli.principal.organization
    place = place_of(organization, "run", cursor)
    after = place[0] if place else None
    page = cli.call(lambda cases: cases.inspector.runs(cli.principal, pipeline=pipeline, limit=limit, after=after))
    following = cursor_of(organization, "run", (page.next_cursor,) if page.next_cursor is not None else None)
    if as_json:
        print_json({"items": page.items, "next_cursor": following})
        return
    rows = [
        [run.id, run.pipeline, run.state.value, run.attempt, _time(run.created_at), run.reason or ""]
        for run in page.items
    ]
    print_table(["run", "pipeline", "state", "attempt", "asked for", "reason"], rows)
    if following:
        say(f"more with --cursor {following}")


@app.command("show")
def show_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show a run: its report, its error, its history."""
    from entrypoints.answers.sizes import fitted

    cli: Cli = context.obj

    async def load(use_cases: UseCases) -> tuple[Any, Any]:
        found = await use_cases.inspector.run(cli.principal, run_id)
        found = replace(found, report=fitted(found.report, use_cases.answers.answer_bytes))
        return found, await use_cases.inspector.transitions(cli.principal, run_id)

    found, transitions = cli.call(load)
    if as_json:
        print_json({**as_plain(found), "transitions": as_plain(transitions)})
        return
    print_report(as_plain(found))
    if found.error:
        say(f"error: {found.error['message']} [{found.error['code']}]")
    rows = [[_time(t.at), t.before or "", t.after, t.fence, t.reason] for t in transitions]
    print_table(["at", "from", "to", "fence", "reason"], rows, title="history")


@app.command("cancel")
def cancel_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Cancel a run: at once if it was never claimed, else at its next batch; committed batches stay."""
    cli: Cli = context.obj
    found = cli.call(lambda use_cases: use_cases.controller.cancel(cli.principal, run_id))
    if as_json:
        print_json(found)
        return
    say(f"run {found.id}: {'cancelled' if found.state.value == 'cancelled' else 'will stop at its next batch'}")


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
    server = cli.server()
    if server is not None:
        asked = server.request("POST", f"/v1/runs/{run_id}/retry", {"abandon": abandon})
        finish(server.wait_for(asked["id"]), asked["pipeline"], as_json=as_json)
        return

    async def again(use_cases: UseCases) -> Any:
        show = progress_line(f"retry of {run_id}")
        ran = await use_cases.here.retry(cli.principal, run_id, abandon=abandon, on_progress=show)
        end_progress()
        return ran.run

    found = as_plain(cli.call(again))
    finish(found, found["pipeline"], as_json=as_json)


@app.command("watch")
def watch_run(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Wait until a run is at its end, then show its report."""
    cli: Cli = context.obj

    async def wait(use_cases: UseCases) -> Any:
        while True:
            found = await use_cases.inspector.run(cli.principal, run_id)
            if found.state.is_terminal or use_cases.life.is_draining:
                return found
            await asyncio.sleep(_WATCH_EVERY_SECONDS)

    found = as_plain(cli.call(wait))
    finish(found, found["pipeline"], as_json=as_json)


@app.command("logs")
def show_logs(context: typer.Context, run_id: str, as_json: AsJson = False) -> None:
    """Show a run's history and events as lines: who did what, when, under which fence, and why."""
    from entrypoints.answers.runs import logs_body

    cli: Cli = context.obj

    async def load(use_cases: UseCases) -> dict[str, Any]:
        return logs_body(*await use_cases.inspector.logs(cli.principal, run_id), use_cases.answers)

    found = cli.call(load)
    if as_json:
        print_json(found)
        return
    for line in found["items"]:
        fields = " ".join(f"{name}={in_one_line(str(value))}" for name, value in line.items() if name not in _LINE_HEAD)
        say(f"{line['at'][:23]}  {line['event']:<22} {fields}")


def _time(moment: Any) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else ""
