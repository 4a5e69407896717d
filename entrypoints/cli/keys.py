"""API keys: issue, list, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json, print_table

if TYPE_CHECKING:
    from datetime import timedelta

app = typer.Typer(help="Keys of the HTTP API, each with a role.", no_args_is_help=True)


@app.command()
def issue(
    context: typer.Context,
    role: Annotated[
        str, typer.Option(help="viewer, runner, data_engineer, pipeline_admin or platform_admin.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", "--subject", help="Whose key it is, for the audit trail; by default its role and prefix."
        ),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(help="How long it is good for, such as 12h or 30d; without, until it is revoked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, once: only a digest of it is stored."""
    from application.identity.access import IssueKey

    cli: Cli = context.obj
    wanted = IssueKey(role, name, _duration(expires_in))
    with cli.client() as client:
        issued = client.issue_key(wanted)
    if as_json:
        print_json(issued)
        return
    say(issued["key"])
    until = f"expires {_minute(issued['expires_at'])} UTC" if issued["expires_at"] else "does not expire"
    say(f"{role} key of {issued['subject']}; {until}; it is not shown again", to_stderr=True)


@app.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List the keys by prefix, with whose they are; the keys themselves are stored nowhere."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.keys()
    if as_json:
        print_json(found)
        return
    rows = [
        [
            key["prefix"], key["subject"], " ".join(key["roles"]), key["state"], _minute(key["created_at"]),
            _minute(key["expires_at"]) if key["expires_at"] else "never",
        ]
        for key in found["items"]
    ]  # fmt: skip
    print_table(["prefix", "name", "role", "state", "created", "expires"], rows)


@app.command()
def revoke(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(help="The key's prefix, from headrace keys list.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key; a running headrace up refuses it from the next request on."""
    cli: Cli = context.obj
    with cli.client() as client:
        revoked = client.revoke_key(prefix)
    print_json(revoked) if as_json else say(f"revoked {revoked['prefix']} of {revoked['subject']}")
    if _is_own(cli, revoked["prefix"]):
        say(
            f"This was the key in {cli.paths.admin_key}: remove that file, and the next headrace up makes another.",
            to_stderr=True,
        )


def _is_own(cli: Cli, prefix: str) -> bool:
    try:
        return cli.paths.admin_key.read_text(encoding="ascii").startswith(f"hr_{prefix}_")
    except (OSError, ValueError):
        return False


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _duration(text: str | None) -> timedelta | None:
    from domain.errors import InvalidInputError
    from domain.pipelines.spec import parse_duration

    try:
        return parse_duration(text) if text is not None else None
    except ValueError as error:
        raise InvalidInputError(f"--expires-in: {error}.", code="key.expiry") from error
