"""Keys beside the administrator's: issued, listed and revoked by the command line, obeyed by a running
server at once.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from application.identity.access import IssueKey
from domain.errors import ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError, PlatformError
from domain.identity.policy import PERMISSIONS, Action
from domain.identity.principal import Principal, Role
from tests.e2e.api import Server, headrace, serving
from tests.e2e.inside import ME, inside
from tests.e2e.projects import new_project

PIPELINE = {
    "version": 1, "pipeline": "p", "source": {"table": "a", "key": ["id"]}, "destination": {"table": "b"}
}  # fmt: skip
CONNECTION = {"version": 1, "connection": "c", "kind": "memory"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = new_project(tmp_path_factory.mktemp("keys") / "project")
    with serving(folder, HEADRACE_STORE__KIND="memory") as running:
        assert running.call("PUT", "/v1/pipelines/p", PIPELINE).status == 201
        yield running


def issued(folder: Path, role: str, *more: str) -> dict[str, Any]:
    done = headrace(folder, "keys", "issue", "--role", role, *more, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / ".headrace/records.db")) as records:
        return records.execute("SELECT * FROM api_keys ORDER BY prefix").fetchall()


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    done = headrace(folder, "keys", "list", "--json")
    assert done.returncode == 0, done.stderr
    return {key["prefix"]: key for key in json.loads(done.stdout)["items"]}


@pytest.mark.parametrize("role", list(Role))
def test_key_may_do_what_its_role_may_until_it_is_revoked(role: Role, server: Server) -> None:
    made = issued(server.folder, role.value)
    key, allowed = made["key"], PERMISSIONS[role]
    calls = [
        (Action.READ, "GET", "/v1/pipelines/p", None),
        (Action.WRITE_SPEC, "PUT", "/v1/pipelines/p", PIPELINE),
        (Action.WRITE_CONNECTION, "PUT", "/v1/connections/c", CONNECTION),
        (Action.TRIGGER, "POST", "/v1/pipelines/p/trigger", None),
        (Action.OPERATE, "POST", "/v1/workers/nobody/drain", None),
    ]
    for action, method, path, body in calls:
        answer = server.call(method, path, body, key=key)
        assert (answer.status == 403) == (action not in allowed), (action, answer.body)
        assert answer.status != 401

    done = headrace(server.folder, "keys", "revoke", made["prefix"])

    assert (done.returncode, done.stdout) == (0, f"revoked {made['prefix']} of {role.value}-{made['prefix']}\n")
    assert server.call("GET", "/v1/pipelines/p", key=key).status == 401  # The very next request.
    assert server.call("GET", "/v1/pipelines/p").status == 200


def test_key_is_shown_once_and_stands_nowhere(server: Server) -> None:
    done = headrace(server.folder, "--verbose", "keys", "issue", "--role", "viewer", "--name", "grafana@ops")
    key = done.stdout.strip()
    prefix = key.split("_")[1]
    assert done.stdout == f"{key}\n"
    assert key not in done.stderr
    assert "not shown again" in done.stderr
    assert server.call("GET", "/v1/pipelines", key=key).status == 200

    shown = headrace(server.folder, "keys", "list")

    assert prefix in shown.stdout
    assert "grafana@ops" in shown.stdout
    secret = key.removeprefix(f"hr_{prefix}_").encode()
    assert [path for path in server.folder.rglob("*") if path.is_file() and secret in path.read_bytes()] == []
    with closing(sqlite3.connect(server.folder / ".headrace/records.db")) as records:
        audited = records.execute("SELECT action, object FROM audit WHERE object LIKE ?", (f"{prefix}%",)).fetchall()
    assert audited == [("issue key", f"{prefix} viewer grafana@ops")]


def test_key_that_was_issued_and_revoked_without_a_server_is_known_to_the_next(tmp_path: Path) -> None:
    folder = new_project(tmp_path / "project")
    kept, revoked = issued(folder, "viewer", "--expires-in", "30d"), issued(folder, "viewer")
    assert kept["subject"] != revoked["subject"]  # Two callers, in the audit trail and where each has a share.
    assert headrace(folder, "keys", "revoke", f"hr_{revoked['prefix']}", "--json").returncode == 0

    with serving(folder, HEADRACE_STORE__KIND="memory") as server:
        assert server.call("GET", "/v1/pipelines", key=kept["key"]).status == 200
        assert server.call("GET", "/v1/pipelines", key=revoked["key"]).status == 401

        own = server.key.split("_")[1]
        done = headrace(folder, "keys", "revoke", server.key)  # Whoever has found a key revokes it by itself.
        assert done.stdout == f"revoked {own} of admin\n"
        assert "admin.key: remove that file" in done.stderr
        assert server.call("GET", "/v1/pipelines").status == 401
        states = {prefix: key["state"] for prefix, key in listed(folder).items()}
    assert states == {kept["prefix"]: "live", revoked["prefix"]: "revoked", own: "revoked"}

    (folder / ".headrace/admin.key").unlink()
    with serving(folder, HEADRACE_STORE__KIND="memory") as server:
        assert server.call("GET", "/v1/pipelines").status == 200


def test_key_that_has_expired_is_refused(server: Server) -> None:
    made = issued(server.folder, "viewer", "--expires-in", "1ms")

    assert server.call("GET", "/v1/pipelines", key=made["key"]).status == 401
    assert listed(server.folder)[made["prefix"]]["state"] == "expired"


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "says"),
    [
        (["issue", "--role", "wizard"], "key.role", 2, "viewer, runner, data_engineer, pipeline_admin, platform_admin"),
        (["issue", "--role", "VIEWER"], "key.role", 2, "there are viewer"),
        (["issue", "--role", "viewer", "--name", "cli:root"], "key.subject", 2, "letters"),
        (["issue", "--role", "viewer", "--name", "a\x1b[31m"], "key.subject", 2, "letters"),
        (["issue", "--role", "viewer", "--name", ""], "key.subject", 2, "letters"),
        (["issue", "--role", "viewer", "--name", "a" * 101], "key.subject", 2, "letters"),
        (["issue", "--role", "viewer", "--expires-in", "soon"], "key.expiry", 2, "such as 5m"),
        (["issue", "--role", "viewer", "--expires-in", "0d"], "key.expiry", 2, "3650 days"),
        (["issue", "--role", "viewer", "--expires-in", "999999999d"], "key.expiry", 2, "3650 days"),
        (["issue", "--role", "viewer", "--expires-in", "-1d"], "key.expiry", 2, "such as 5m"),
        (["revoke", "abcdefghijkl"], "key.not_found", 2, "keys list"),
        (["revoke", "' or 1=1"], "key.not_found", 2, "keys list"),
    ],
)
def test_what_cannot_be_done_with_keys_is_told(
    arguments: list[str], code: str, exit_code: int, says: str, server: Server
) -> None:
    before = stored(server.folder)

    done = headrace(server.folder, "keys", *arguments)

    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert f"[{code}]" in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert stored(server.folder) == before


def test_key_is_revoked_once(server: Server) -> None:
    made = issued(server.folder, "viewer")
    assert headrace(server.folder, "keys", "revoke", made["prefix"]).returncode == 0

    again = headrace(server.folder, "keys", "revoke", made["prefix"])

    assert (again.returncode, again.stdout) == (1, "")
    assert "is revoked already" in again.stderr
    assert "[key.revoked]" in again.stderr


def test_key_of_a_role_that_nobody_knows_is_refused_in_one_line(server: Server) -> None:
    made = issued(server.folder, "viewer")
    strange = ['["wizard"]', '["viewer", "wizard"]', "[]", "null", '"viewer"', "[1]", "{}", "no json", "", "[[[["]
    for number, roles in enumerate(strange, start=1):
        with closing(sqlite3.connect(server.folder / ".headrace/records.db")) as records:
            records.execute("UPDATE api_keys SET roles = ? WHERE prefix = ?", (roles, made["prefix"]))
            records.commit()

        answer = server.call("GET", "/v1/pipelines", key=made["key"])

        assert (answer.status, answer.body["code"]) == (401, "auth.required"), roles
        lines = [line for line in (server.folder / "up.log").read_text().splitlines() if made["prefix"] in line]
        assert len(lines) == number
        assert "key.role_unknown" in lines[-1]
    assert listed(server.folder)[made["prefix"]]["state"] == "refused"
    assert headrace(server.folder, "keys", "revoke", made["prefix"]).returncode == 0


def test_organization_that_is_not_there_gets_no_key(server: Server) -> None:
    done = headrace(server.folder, "--org", "ghost", "keys", "issue", "--role", "viewer")

    assert (done.returncode, done.stdout) == (2, "")
    assert "[organization.not_found]" in done.stderr


async def test_nobody_hands_out_or_takes_away_more_than_they_have(tmp_path: Path) -> None:
    async with inside(new_project(tmp_path / "project"), HEADRACE_STORE__KIND="memory") as there:
        keys, authenticator = there.use_cases.keys, there.use_cases.authenticator
        keeper = Principal("keeper", "default", frozenset({Role.PIPELINE_ADMIN}))
        stranger = Principal("stranger", "other", frozenset({Role.PLATFORM_ADMIN}))
        above = await keys.issue(ME, IssueKey("platform_admin"))
        below = await keys.issue(keeper, IssueKey("pipeline_admin", "second", timedelta(hours=1)))
        assert (await authenticator.principal_of(below.key)).roles == {Role.PIPELINE_ADMIN}

        refusals: list[tuple[type[PlatformError], Any]] = [
            (PermissionDeniedError, keys.issue(keeper, IssueKey("platform_admin"))),
            (PermissionDeniedError, keys.revoke(keeper, above.stored.prefix)),
            (NotFoundError, keys.revoke(stranger, above.stored.prefix)),
            (InvalidInputError, keys.issue(keeper, IssueKey("wizard"))),
        ]
        for role in (Role.VIEWER, Role.RUNNER, Role.DATA_ENGINEER):
            small = Principal("small", "default", frozenset({role}))
            refusals += [
                (PermissionDeniedError, keys.issue(small, IssueKey(role.value))),
                (PermissionDeniedError, keys.page(small)),
                (PermissionDeniedError, keys.revoke(small, below.stored.prefix)),
            ]
        for kind, attempt in refusals:
            with pytest.raises(kind):
                await attempt

        assert [key.prefix for key, state in await keys.page(keeper) if state == "live"] == [
            above.stored.prefix,
            below.stored.prefix,
        ]
        await keys.revoke(keeper, below.stored.prefix)
        with pytest.raises(ConflictError):
            await keys.revoke(ME, below.stored.prefix)
        assert await keys.page(stranger) == []
