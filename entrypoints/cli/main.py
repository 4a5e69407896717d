"""The `headrace` command: root options, the command groups, and errors as exit codes."""

import sys
from importlib.metadata import version as installed_version
from typing import Annotated, NoReturn

import typer

from domain.errors import InvalidInputError, PlatformError
from entrypoints.cli import (
    config,
    connections,
    crashtest,
    demo,
    keys,
    operations,
    pipelines,
    projects,
    quarantine,
    running,
    runs,
    testing,
    workers,
)
from entrypoints.cli.context import Cli
from entrypoints.cli.errors import exit_code, show_error
from entrypoints.cli.output import say

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Data pipelines whose every row lands exactly once. Start with: headrace demo",
)
demo.register(app)
projects.register(app)
running.register(app)
operations.register(app)
crashtest.register(app)
testing.register(app)
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(runs.app, name="runs")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(workers.app, name="workers")
app.add_typer(connections.app, name="connections")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(config.database, name="db")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(installed_version("headrace"))
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A setting, such as store.kind=memory; wins over all else."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="The profile of headrace.toml.")] = None,
    org: Annotated[str | None, typer.Option(help="The organization to act in.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show log lines.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep the root options for the command."""
    del version
    flags = {}
    for assignment in assignments or []:
        path, separator, value = assignment.partition("=")
        if not separator:
            raise InvalidInputError(f"--set wants PATH=VALUE, as in --set store.kind=memory; got {path}.")
        flags[path] = value
    context.obj = Cli(flags, profile, org, verbose)


def main() -> None:
    """Run the command line; every error of ours is one sentence and an exit code, never a traceback."""
    try:
        app()
    except PlatformError as error:
        show_error(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except UnicodeEncodeError as error:
        if all(_is_text(argument) for argument in sys.argv):
            _show_crash(error)
        say("error: an argument is not UTF-8 [argument.encoding]", to_stderr=True)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - a bug of ours: a sentence for people, details in the log
        _show_crash(error)


def _show_crash(error: Exception) -> NoReturn:
    from entrypoints.composition.start import ensure_logs
    from entrypoints.log import log

    ensure_logs()
    log.error("command.crashed", exc_info=error)
    say(f"error: something unexpected failed ({type(error).__name__}); please report it [internal]", to_stderr=True)
    sys.exit(1)


def _is_text(argument: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in argument)


if __name__ == "__main__":
    main()
