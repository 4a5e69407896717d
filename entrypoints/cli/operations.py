"""The installation: up, api, worker, health, doctor."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from entrypoints.answers.health import parts_rows
from entrypoints.cli.context import Cli
from entrypoints.cli.render import AsJson, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    for command in (up, api, worker, health, doctor):
        app.command()(command)


Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one.")]


def up(context: typer.Context, port: Port = None) -> None:
    """Serve the API and run pipelines in this process, until SIGTERM or Ctrl-C."""
    from entrypoints.process.serve import UP

    _serve(context.obj, UP, "http.port", port)


def api(context: typer.Context, port: Port = None) -> None:
    """Serve the API only; headrace worker processes run the pipelines. Needs stores that processes can share."""
    from entrypoints.process.serve import API

    _serve(context.obj, API, "http.port", port)


def worker(context: typer.Context, port: Port = None) -> None:
    """Run pipelines only, as one of any number of workers; with a port, answer /health and /ready on it."""
    from entrypoints.process.serve import WORKER

    _serve(context.obj, WORKER, "worker.port", port)


def _serve(cli: Cli, roles: str, port_setting: str, port: int | None) -> None:
    from entrypoints.composition.serving import serving_of
    from entrypoints.process.serve import UP, serve

    cli.is_verbose = True
    if port is not None:
        cli.flags = {**cli.flags, port_setting: str(port)}
    settings = cli.loaded.settings
    serving = serving_of(settings, cli.paths, alone=None if roles == UP else roles)
    sys.exit(serve(cli.container, serving, roles))


def health(context: typer.Context, as_json: AsJson = False) -> None:
    """Check each part: of the running headrace up, or of what this process would open."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.readiness()
    if as_json:
        print_json(found)
    else:
        rows = [(name, trouble, remedy) for name, _, trouble, remedy in parts_rows(found)]
        print_table(["part", "trouble", "what to do"], rows)
    if not found["ready"]:
        raise typer.Exit(3)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Look at the whole installation and say what to do about what is wrong."""
    from domain.errors import PlatformError
    from entrypoints.composition.doctor import findings

    cli: Cli = context.obj
    try:
        loaded = cli.loaded
    except PlatformError as error:
        told = [f"{problem.place}: {problem.message}" for problem in error.problems] or [error.message]
        rows = [("settings", False, sentence) for sentence in told]
    else:
        rows = findings(loaded.settings, cli.paths, cli.server() is not None)
        with cli.client() as client:
            parts = parts_rows(client.readiness())
        rows += [
            (name, is_well, "works" if is_well else f"{trouble}: {remedy}") for name, is_well, trouble, remedy in parts
        ]
    if as_json:
        print_json([{"check": name, "ok": is_ok, "detail": detail} for name, is_ok, detail in rows])
    else:
        print_table(["check", "ok", "detail"], rows)
    if not all(is_ok for _, is_ok, _ in rows):
        raise typer.Exit(3)
