"""Settings: order of sources, all problems at once, nothing shown that is secret."""

from pathlib import Path

import pytest

from domain.errors import SettingsError
from infrastructure.postgres.sign_in import sign_in_of
from infrastructure.settings.reference import catalog, is_setting_name
from infrastructure.settings.rules import records_sign_in, shares_credentials
from infrastructure.settings.sources import load_settings, shown

SECRET = "correct-horse-battery"


def problems(root: Path, **environment: str) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(root=root, environment=environment)
    assert SECRET not in str(caught.value)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_sources_win_in_the_written_order(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "APP_NAME").write_text("from-secrets\n")
    environment = {"HEADRACE_SECRETS_DIR": str(secrets)}

    def name(flags: dict[str, str] | None = None) -> tuple[str, str]:
        loaded = load_settings(root=tmp_path, flags=flags, environment=environment)
        return loaded.settings.app.name, loaded.origins.get("app.name", "default")

    found = [name()]
    (tmp_path / "headrace.toml").write_text('[settings]\napp.name = "from-toml"\n')
    found.append(name())
    (tmp_path / ".env").write_text("APP_NAME=from-env-file\nENVIRONMENT=staging\n")
    found.append(name())
    (tmp_path / ".env.staging").write_text("APP_NAME=from-staging\n")
    found.append(name())
    environment["APP_NAME"] = "from-environment"
    found.append(name())
    found.append(name({"app.name": "from-flag"}))
    environment.clear()

    assert found == [
        ("from-secrets", "secrets folder"),
        ("from-toml", "headrace.toml"),
        ("from-env-file", ".env"),
        ("from-staging", ".env.staging"),
        ("from-environment", "environment"),
        ("from-flag", "flag --set"),
    ]


def test_all_problems_come_at_once_with_source_and_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\nstore.knid = 'duckdb'\n")

    found = problems(
        tmp_path, DB_PORT="5_432", BATCH_SIZE=SECRET, HEADRACE_STORE__KIND="snowflake", HEADRACE_LOGS__LEVL="x"
    )

    assert found["DB_PORT (environment)"] == "must be a whole number in ASCII digits"
    assert "BATCH_SIZE (environment)" in found
    assert "duckdb" in found["HEADRACE_STORE__KIND (environment)"]
    assert "HEADRACE_LOGS__LEVEL" in found["HEADRACE_LOGS__LEVL (environment)"]
    assert "store.kind" in found["store.knid (headrace.toml)"]


def test_only_sections_in_use_are_required(tmp_path: Path) -> None:
    assert load_settings(root=tmp_path, environment={}).settings.store.kind == "duckdb"

    assert set(problems(tmp_path, HEADRACE_STORE__KIND="postgres")) == {"DB_HOST", "DB_NAME", "DB_USER"}
    assert set(problems(tmp_path, HEADRACE_METADATA__KIND="postgres")) == {"DB_HOST", "DB_NAME", "DB_USER"}
    url = load_settings(
        root=tmp_path,
        environment={"HEADRACE_METADATA__KIND": "postgres", "HEADRACE_METADATA__URL": "postgresql://u@h/d"},
    )
    assert records_sign_in(url.settings).host == "h"


BOTH = {"HEADRACE_STORE__KIND": "postgres", "HEADRACE_METADATA__KIND": "postgres"}
DB = {"DB_HOST": "db", "DB_NAME": "d", "DB_USER": "writer", "DB_PASSWORD": SECRET}
OWN = {"HEADRACE_METADATA__USER": "keeper", "HEADRACE_METADATA__PASSWORD": "another-secret"}
ELSEWHERE = {"HEADRACE_METADATA__HOST": "other", "HEADRACE_METADATA__NAME": "r"}


@pytest.mark.parametrize(
    ("settings", "expected", "password"),
    [
        (DB, ("db", 5432, "d", "writer", None), SECRET),
        (DB | OWN, ("db", 5432, "d", "keeper", None), "another-secret"),
        (DB | {"HEADRACE_METADATA__USER": "keeper"}, ("db", 5432, "d", "keeper", None), None),
        (DB | OWN | {"HEADRACE_METADATA__NAME": "r"}, ("db", 5432, "r", "keeper", None), "another-secret"),
        (
            DB | {"DB_PORT": "6000", "HEADRACE_DATABASE__SSLMODE": "require"},
            ("db", 6000, "d", "writer", "require"),
            SECRET,
        ),
        (
            DB | OWN | ELSEWHERE | {"DB_PORT": "6000", "HEADRACE_DATABASE__SSLMODE": "require"},
            ("other", 5432, "r", "keeper", None),
            "another-secret",
        ),
        (
            {"HEADRACE_METADATA__URL": "postgresql://k%40x:p%2Fw@[::1]:6001/r?sslmode=disable"},
            ("::1", 6001, "r", "k@x", "disable"),
            "p/w",
        ),
        ({"HEADRACE_METADATA__URL": "postgres://k@/r?host=/run/pg"}, ("/run/pg", 5432, "r", "k", None), None),
    ],
)
def test_records_sign_in_as_they_are_told(
    settings: dict[str, str], expected: tuple[object, ...], password: str | None, tmp_path: Path
) -> None:
    given = {"HEADRACE_METADATA__KIND": "postgres", **settings}
    found = records_sign_in(load_settings(root=tmp_path, environment=given).settings)
    for each in (found, sign_in_of(found.url())):
        assert (each.host, each.port, each.database, each.user, each.sslmode) == expected
        assert (each.password.reveal() if each.password else None) == password
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (DB | ELSEWHERE, {"HEADRACE_METADATA__USER"}),
        (DB | {"HEADRACE_METADATA__PASSWORD": "x"}, {"HEADRACE_METADATA__USER"}),
        (OWN, {"DB_HOST", "DB_NAME"}),
        (OWN | {"HEADRACE_METADATA__HOST": "other"}, {"HEADRACE_METADATA__NAME"}),
        (
            OWN | {"HEADRACE_METADATA__URL": "postgresql://u@h/d"},
            {"HEADRACE_METADATA__USER", "HEADRACE_METADATA__PASSWORD"},
        ),
        ({"HEADRACE_METADATA__URL": f"mysql://u:{SECRET}@h/d"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": f"postgresql://u:{SECRET}@h/d?passfile=/x"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": f"postgresql://u:{SECRET}@h/d?sslmode=verify-full"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": f"postgresql://u:{SECRET}@h/d?sslmode=on"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": f"postgresql://u:{SECRET}@h:99999/d"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": f"postgresql://:{SECRET}@h/d"}, {"HEADRACE_METADATA__URL"}),
        ({"HEADRACE_METADATA__URL": "postgresql:///d"}, {"HEADRACE_METADATA__URL"}),
        (DB | {"HEADRACE_DATABASE__SSLMODE": "verify-full"}, {"HEADRACE_DATABASE__SSL_CA_CERT"}),
        (DB | {"HEADRACE_METADATA__SSL_CA_CERT": "x"}, {"HEADRACE_METADATA__SSL_CA_CERT"}),
    ],
)
def test_half_of_an_address_is_refused(settings: dict[str, str], names: set[str], tmp_path: Path) -> None:
    found = problems(tmp_path, HEADRACE_METADATA__KIND="postgres", **settings)
    assert set(found) == names
    assert not any(SECRET in said for said in found.values())


SHARING = [
    DB,
    DB | {"HEADRACE_METADATA__NAME": "r"},
    DB | {"HEADRACE_METADATA__USER": "writer", "HEADRACE_METADATA__PASSWORD": "another-secret"},
    DB | {"HEADRACE_METADATA__URL": f"postgresql://writer:{SECRET}@DB:5432/r"},
    DB | {"DB_HOST": "localhost", "HEADRACE_METADATA__URL": "postgresql://writer@127.0.0.1/d"},
]


@pytest.mark.parametrize("settings", SHARING)
def test_records_do_not_sign_in_as_the_store_does_in_production(settings: dict[str, str], tmp_path: Path) -> None:
    assert shares_credentials(load_settings(root=tmp_path, environment=BOTH | settings).settings)
    found = problems(tmp_path, ENVIRONMENT="production", **(BOTH | settings))
    assert set(found) == {"HEADRACE_METADATA__USER"}
    assert "HEADRACE_METADATA__PASSWORD" in found["HEADRACE_METADATA__USER"]


@pytest.mark.parametrize(
    "settings",
    [
        BOTH | DB | OWN,
        BOTH | DB | OWN | ELSEWHERE,
        BOTH | DB | {"HEADRACE_METADATA__URL": "postgresql://keeper:another-secret@db/d"},
        DB | {"HEADRACE_METADATA__KIND": "postgres"},
        DB | {"HEADRACE_STORE__KIND": "postgres"},
    ],
)
def test_records_with_credentials_of_their_own_are_for_production(settings: dict[str, str], tmp_path: Path) -> None:
    loaded = load_settings(root=tmp_path, environment=settings | {"ENVIRONMENT": "production"})
    assert not shares_credentials(loaded.settings)


@pytest.mark.parametrize(
    ("name", "value", "twin"),
    [
        ("HEADRACE_METADATA__URL", "postgresql://u:postgres@h/d", "postgresql://u:a-long-one-6f@h/d"),
        ("HEADRACE_METADATA__URL", "postgresql://u:p%6Fst%67res@h/d", "postgresql://u:p%6Fst%67res-6f@h/d"),
        (
            "HEADRACE_METADATA__URL",
            "postgresql://u:ChangeMe@h/d?sslmode=require",
            "postgresql://u:x9@h/d?sslmode=require",
        ),
        ("HEADRACE_METADATA__URL", "postgresql://u:@h/d", "postgresql://u@h/d"),
        ("OTEL_EXPORTER_ENDPOINT", "http://me:password@collector:4318", "http://collector:4318"),
        ("OTEL_EXPORTER_ENDPOINT", "http://collector:4318?password=secret", "http://collector:4318?password=x9"),
        ("REDIS_PASSWORD", " Redis ", "redis-6f"),
        ("DB_PASSWORD", "root", "root-6f"),
    ],
)
def test_known_passwords_are_refused_in_production_wherever_they_stand(
    name: str, value: str, twin: str, tmp_path: Path
) -> None:
    records = {"HEADRACE_METADATA__KIND": "postgres"} if name.endswith("URL") else {}
    assert set(problems(tmp_path, ENVIRONMENT="production", **records, **{name: value})) == {name}
    for environment, text in (("production", twin), ("development", value)):
        load_settings(root=tmp_path, environment={"ENVIRONMENT": environment, name: text, **records})


@pytest.mark.parametrize(
    ("name", "value"),
    [("DEBUG", "true"), ("OTEL_SAMPLING_RATE", "0.05"), ("DB_PASSWORD", "postgres"), ("REDIS_PASSWORD", "changeme")],
)
def test_production_refuses_what_development_allows(name: str, value: str, tmp_path: Path) -> None:
    load_settings(root=tmp_path, environment={name: value})

    assert set(problems(tmp_path, ENVIRONMENT="production", **{name: value})) == {name}


def test_secrets_are_masked_and_origins_told(tmp_path: Path) -> None:
    loaded = load_settings(root=tmp_path, environment={"DB_PASSWORD": SECRET, "DB_HOST": "db"})

    rows = {name: (value, origin) for name, value, origin in shown(loaded)}

    assert rows["DB_PASSWORD"] == ("***", "environment")
    assert rows["DB_HOST"] == ("db", "environment")
    assert rows["DB_PORT"] == ("5432", "default")
    assert len(rows) == len(catalog())
    assert SECRET not in repr(loaded)


@pytest.mark.parametrize(
    "prefix", ["", "HEADRACE_", "headrace_SECRETS", "HEADRACE", "AWS_", "AWS", "PG", "DB_", "LD_", "PATH", "A B"]
)
def test_prefix_of_secrets_is_never_that_of_other_names(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(root=tmp_path, environment={"HEADRACE_SECRETS__ENVIRONMENT_PREFIX": prefix})
    assert caught.value.problems[0].place.startswith("HEADRACE_SECRETS__ENVIRONMENT_PREFIX")


@pytest.mark.parametrize(
    "names", ["AWS_SECRET_ACCESS_KEY", "SHOP,PATH", "HEADRACE_KEY", "PGPASSWORD", "BATCH_SIZE", "A B", "debug"]
)
def test_listed_secrets_are_none_of_the_process(names: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(root=tmp_path, environment={"HEADRACE_SECRETS__ENVIRONMENT_NAMES": names})
    assert caught.value.problems[0].place.startswith("HEADRACE_SECRETS__ENVIRONMENT_NAMES")


def test_names_of_secrets_are_chosen_by_prefix_and_list(tmp_path: Path) -> None:
    chosen = {
        "HEADRACE_SECRETS__ENVIRONMENT_PREFIX": "SHOP_",
        "HEADRACE_SECRETS__ENVIRONMENT_NAMES": "CRM_KEY, ERP_KEY",
    }
    secrets = load_settings(root=tmp_path, environment=chosen).settings.secrets
    assert (secrets.environment_prefix, secrets.environment_names) == ("SHOP_", ("CRM_KEY", "ERP_KEY"))
    assert load_settings(root=tmp_path, environment={}).settings.secrets.environment_prefix == "SECRET_"


def test_names_of_settings_are_known_as_such() -> None:
    assert is_setting_name("DB_PASSWORD")
    assert is_setting_name("headrace_anything")
    assert not is_setting_name("SHOP_PASSWORD")
