"""The platform's records under a role of their own: whoever signs in as the store cannot read or write keys."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.databases import postgres
from tests.e2e.api import headrace, serving
from tests.e2e.inside import inside
from tests.e2e.projects import new_project, postgres_environment

SHARED = "HEADRACE_METADATA__USER"


@pytest.mark.line("10")
async def test_role_of_the_store_reaches_no_record_of_another_role(tmp_path: Path, postgres_database: str) -> None:
    name = urlsplit(postgres_database).path[1:]
    writer, keeper = f"writer_{name}", f"keeper_{name}"
    for statement in (
        f"CREATE ROLE {writer} LOGIN",
        f"CREATE ROLE {keeper} LOGIN",
        f"CREATE SCHEMA headrace AUTHORIZATION {keeper}",
        f"CREATE SCHEMA {writer} AUTHORIZATION {writer}",
        f"ALTER ROLE {writer} SET search_path = {writer}",
        f"CREATE TABLE {writer}.a AS SELECT 1::bigint AS id",
        f"ALTER TABLE {writer}.a ADD PRIMARY KEY (id)",
        f"ALTER TABLE {writer}.a OWNER TO {writer}",
    ):
        postgres(postgres_database, statement)
    try:
        settings = postgres_environment(postgres_database) | {"DB_USER": writer, SHARED: keeper}
        async with inside(new_project(tmp_path / "project"), **settings, HEADRACE_METADATA__KIND="postgres") as there:
            await there.pipeline("copy", "table: a, key: [id]", "table: b, mode: append")
            await there.report("copy")
        assert postgres(postgres_database, f"SELECT id FROM {writer}.b") == [(1,)]
        owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'headrace'"
        assert postgres(postgres_database, owners) == [(keeper,)]
        may = f"SELECT has_schema_privilege('{writer}', 'headrace', 'usage')"
        assert postgres(postgres_database, may) == [(False,)]
    finally:
        for role in (writer, keeper):
            postgres(postgres_database, f"DROP OWNED BY {role} CASCADE")
            postgres(postgres_database, f"DROP ROLE {role}")


def test_sharing_is_told_at_start_and_by_the_doctor_and_refused_in_production(
    tmp_path: Path, postgres_database: str
) -> None:
    project = new_project(tmp_path / "project")
    sharing = postgres_environment(postgres_database) | {"HEADRACE_METADATA__KIND": "postgres"}
    with serving(project, **sharing):
        pass
    log = (project / "up.log").read_text()
    assert log.count("records.credentials_shared") == 1
    assert SHARED in log
    done = headrace(project, "doctor", **sharing)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"warning: {SHARED}" in " ".join(done.stdout.split())

    for command in (["doctor"], ["up", "--port", "0"]):
        refused = headrace(project, *command, **sharing, ENVIRONMENT="production")
        assert refused.returncode in (2, 3)
        said = " ".join((refused.stdout + refused.stderr).split())
        assert SHARED in said
        assert "HEADRACE_METADATA__PASSWORD" in said


def test_records_of_their_own_are_not_warned_of(tmp_path: Path, postgres_database: str) -> None:
    role = f"own_{urlsplit(postgres_database).path[1:]}"
    postgres(postgres_database, f"CREATE ROLE {role} LOGIN SUPERUSER")
    try:
        project = new_project(tmp_path / "project")
        own = postgres_environment(postgres_database) | {"HEADRACE_METADATA__KIND": "postgres", SHARED: role}
        with serving(project, **own, ENVIRONMENT="production"):
            pass
        assert "credentials_shared" not in (project / "up.log").read_text()
    finally:
        postgres(postgres_database, f"DROP OWNED BY {role} CASCADE")
        postgres(postgres_database, f"DROP ROLE {role}")
