"""Docs, settings, errors, schemas and OpenAPI agree with the code."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from domain import errors
from domain.failpoints import FAILPOINTS
from entrypoints.cli.errors import EXIT_CODES, exit_code
from entrypoints.client.server import problem_of
from entrypoints.http.errors import STATUS, headers_of, status_of
from infrastructure.settings.reference import catalog, reference
from tests.e2e.api import openapi

ROOT = Path(__file__).parents[2]


def leaves() -> list[type[errors.PlatformError]]:
    return [
        found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, errors.PlatformError)
    ]


def test_every_error_has_an_exit_code_and_a_status() -> None:
    assert set(leaves()) <= set(EXIT_CODES)
    assert set(leaves()) <= set(STATUS)


def test_every_error_has_one_exit_code_whether_a_server_is_asked_or_not() -> None:
    for kind, code in EXIT_CODES.items():
        error = kind.__new__(kind)
        name = headers_of(error).get("Headrace-Error", "")

        assert exit_code(problem_of(status_of(error), {}, name)) == code, kind


def test_every_error_is_drawn_in_the_picture() -> None:
    picture = errors.__doc__ or ""
    assert [found.__name__ for found in leaves() if found.__name__ not in picture] == []


def test_settings_reference_is_the_generated_one() -> None:
    assert (ROOT / "docs/reference/settings.md").read_text() == reference()


def test_openapi_document_is_the_generated_one() -> None:
    assert json.loads((ROOT / "docs/reference/openapi.json").read_text()) == openapi()


def test_page_of_benchmarks_is_made_from_the_results() -> None:
    from benchmarks.telling import PAGE, page

    assert PAGE.read_text() == page()


def test_every_setting_has_a_meaning_and_one_name() -> None:
    names = [name for info in catalog() for name in info.names]
    assert len(names) == len(set(names))
    assert all(info.field.description for info in catalog())
    documented = (
        "ENVIRONMENT DEBUG APP_NAME API_VERSION DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD DB_POOL_SIZE "
        "DB_MAX_OVERFLOW SNOWFLAKE_ACCOUNT SNOWFLAKE_USER SNOWFLAKE_PASSWORD SNOWFLAKE_WAREHOUSE SNOWFLAKE_DATABASE "
        "SNOWFLAKE_SCHEMA SNOWFLAKE_ROLE SNOWFLAKE_PRIVATE_KEY_FILE REDIS_HOST REDIS_PORT REDIS_PASSWORD REDIS_DB "
        "REDIS_SSL OTEL_ENABLED OTEL_SERVICE_NAME OTEL_EXPORTER_ENDPOINT OTEL_SAMPLING_RATE OTEL_LOG_LEVEL "
        "BATCH_SIZE MAX_RETRIES TIMEOUT_SECONDS WAREHOUSE ENABLE_CACHING ENABLE_RATE_LIMITING MAX_BATCH_SIZE"
    )
    assert set(documented.split()) <= set(names)


def test_every_failpoint_has_its_place_in_the_code() -> None:
    code = "".join(
        path.read_text()
        for folder in ("application", "infrastructure", "entrypoints")
        for path in (ROOT / folder).rglob("*.py")
    )
    assert {name for name in FAILPOINTS if f'fail_at("{name}")' not in code} == set()
    assert set(re.findall(r'fail_at\("([^"]+)"\)', code)) <= FAILPOINTS


def test_readme_maps_every_folder_and_names_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in ("domain", "application", "infrastructure", "entrypoints", "tests", "benchmarks", "docs", "examples"):
        assert f"`{folder}/`" in readme, folder
    for command in ("make demo", "make test"):
        assert command in readme


def test_changelog_tells_of_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text
    assert re.search(r"### Added", text)


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/adr/*.md")), ids=lambda path: path.name)
def test_decision_records_have_context_decision_consequences(path: Path) -> None:
    text = path.read_text()
    assert all(f"## {heading}" in text for heading in ("Context", "Decision", "Consequences"))


def test_no_index_address_and_no_uv_lock() -> None:
    assert not (ROOT / "uv.lock").exists()
    for name in ("requirements.lock", "requirements-uv.txt", "pyproject.toml", "Makefile"):
        assert not re.search(r"https?://", (ROOT / name).read_text()), name


def test_guide_lists_every_rule_and_every_state_of_a_refused_row() -> None:
    from domain.loads.quarantine import RefusedState
    from domain.quality.rules import ROW_RULES, RUN_RULES

    text = (ROOT / "docs/guides/quality.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([a-z ]+)", text, re.MULTILINE))
    assert {name for name, over in rows.items() if over.startswith("a row")} == ROW_RULES
    assert {name for name, over in rows.items() if over.startswith("the run ")} >= RUN_RULES
    assert {state.value for state in RefusedState} <= set(rows)


def test_guide_and_command_name_every_role() -> None:
    from domain.identity.principal import Role
    from entrypoints.cli.keys import issue

    guide = (ROOT / "docs/guides/running.md").read_text()
    keys = guide.partition("## Keys")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z_]+)` \|", keys, re.MULTILINE) == [role.value for role in Role]
    assert all(role.value in str(issue.__annotations__["role"]) for role in Role)


def test_guide_names_every_code_of_a_store_that_is_tried_again() -> None:
    """And none that is not: a table that lacks one tells people to wait for nobody."""
    retried = {errors.StoreUnavailableError.code}
    for path in sorted((ROOT / "infrastructure/stores").rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            retried |= _code_of(call, errors.StoreUnavailableError.__name__)
    guide = (ROOT / "docs/guides/running.md").read_text()
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| (yes|no) \|$", guide, re.MULTILINE)
    told = {
        answer: {code for cell, again in rows if again == answer for code in re.findall(r"`([^`]+)`", cell)}
        for answer in ("yes", "no")
    }

    assert len(retried) > 10
    assert told["yes"] == retried
    assert told["no"] & retried == set()


def _code_of(call: ast.Call, error: str) -> set[str]:
    """The code of an error where a call makes it, or says that it is to be made: `Answer(Error, "code", …)`."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    given = [arg.id if isinstance(arg, ast.Name) else getattr(arg, "value", None) for arg in call.args]
    codes = [keyword.value for keyword in call.keywords if keyword.arg == "code"] if name == error else []
    found = {code.value for code in codes if isinstance(code, ast.Constant) and isinstance(code.value, str)}
    return found | ({str(given[1])} if len(given) > 1 and given[0] == error else set())


def test_sessions_with_a_postgres_are_opened_in_one_way() -> None:
    allowed = {"infrastructure/postgres/sign_in.py": "asyncpg", "infrastructure/stores/postgres/connection.py": "dbapi"}
    found = {
        f"{path.relative_to(ROOT)}": node.value.id
        for folder in ("infrastructure", "entrypoints", "application", "domain")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("connect", "create_pool")
        and isinstance(node.value, ast.Name)
        if node.value.id in ("asyncpg", "dbapi", "adbc_driver_postgresql", "psycopg")
    }
    assert found == allowed


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/glossary.md", "docs/guides/adding-a-store.md"])
def test_every_place_in_the_code_that_a_page_names_is_there(page: str) -> None:
    named = set(
        re.findall(
            r"`((?:domain|application|infrastructure|entrypoints|tests|benchmarks)/[^` ]*)`", (ROOT / page).read_text()
        )
    )
    assert len(named) > 2
    assert {place for place in named if "NAME" not in place and not (ROOT / place).exists()} == set()


def test_glossary_says_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z][a-z -]*) \| ", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    words = [word for word in words if word != "word"]
    assert len(words) == len(set(words)) > 30
