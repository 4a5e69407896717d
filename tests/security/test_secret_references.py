"""What a connection document may name as its secret, at both doors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import SpecError
from tests.e2e.api import Server, headrace, serving
from tests.e2e.inside import ME, inside
from tests.e2e.projects import new_project, postgres_connection
from tests.security.test_bad_input import SHOP, accepted_at_both_doors, refused_at_both_doors

LISTED = "HEADRACE_SECRETS__ENVIRONMENT_NAMES"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "headrace.toml").write_text("[settings]\nsecrets.environment_names = ['CRM_KEY']\n")
    with serving(folder, HEADRACE_STORE__KIND="memory") as running:
        yield running


@pytest.mark.line("30")
@pytest.mark.parametrize(
    "reference",
    [
        "env:PATH",
        "env:HOME",
        "env:JWT_SECRET",
        "env:DB_PASSWORD",
        "env:db_password",
        "env:PGPASSWORD",
        "env:AWS_SECRET_ACCESS_KEY",
        "env:HEADRACE_METADATA__URL",
        "env:headrace_key",
        "env:PYTHONPATH",
        "env:LD_PRELOAD",
        "env:SHOP_PASSWORD",
        "env:secret_shop",
        "env: SECRET_SHOP",
        "env:SECRET_SHOP ",
        "env:SECRET-SHOP",
        "file:../../etc/shadow",
        "file:/etc/shadow",
        "file:a/../../b",
    ],
)
def test_reference_to_what_is_not_the_connections_is_refused(server: Server, reference: str) -> None:
    document = {**SHOP, "secrets": {"password": reference}}
    said = refused_at_both_doors(server, document, "secret.forbidden", kind="connection", name="shop")
    assert "secrets.password" in said
    answer = server.call("POST", "/v1/plans", {"documents": [document]})
    assert (answer.status, answer.body["code"]) == (422, "secret.forbidden"), answer.body
    done = headrace(server.folder, "apply", "-f", "bad.json", "--yes")
    assert done.returncode == 2
    assert "secret.forbidden" in done.stderr


@pytest.mark.line("30")
@pytest.mark.parametrize("reference", ["env:SECRET_SHOP", "env:CRM_KEY", "file:shop", "file:shop/password"])
def test_reference_of_the_connections_own_is_accepted(server: Server, reference: str) -> None:
    document = {**SHOP, "secrets": {"password": reference}}
    accepted_at_both_doors(server, document, kind="connection", name="shop")


@pytest.mark.line("30")
async def test_stored_reference_is_refused_at_each_use_once_it_is_not_allowed(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "unused")
    project = new_project(tmp_path / "project")
    document = postgres_connection(postgres_database, "shop") + "secrets: {password: 'env:SHOP_PASSWORD'}\n"
    async with inside(project, **{LISTED: "SHOP_PASSWORD"}) as there:
        await there.put(document)
        assert (await there.use_cases.probe.test(ME, "shop")).is_healthy
    async with inside(project) as there:
        tried = await there.use_cases.probe.test(ME, "shop")
        with pytest.raises(SpecError, match="SECRET_SHOP_PASSWORD"):
            await there.put(document)

    assert (tried.is_healthy, tried.step) == (False, "sign_in")
    assert 'secrets: {password: "env:SECRET_SHOP_PASSWORD"}' in (tried.detail or "")


def test_refusal_prints_the_line_to_write(server: Server) -> None:
    (server.folder / "old.yaml").write_text(
        "version: 1\nconnection: shop\nkind: postgres\noptions: {host: db, database: d, user: u}\n"
        'secrets: {password: "env:SHOP_PASSWORD"}\n'
    )
    done = headrace(server.folder, "validate", "-f", "old.yaml")
    assert done.returncode == 2
    assert 'secrets: {password: "env:SECRET_SHOP_PASSWORD"}' in done.stderr
    assert LISTED in done.stderr
