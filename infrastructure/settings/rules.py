"""What only several settings together can tell: sections in use, who signs in where, and the rules of production."""

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, SecretStr

from domain.errors import Problem
from domain.ports.secrets import Secret
from domain.stores.kinds import POSTGRES
from infrastructure.postgres.sign_in import VERIFIED, SignIn, sign_in_of
from infrastructure.settings.tree import Settings

_KNOWN_SECRETS = frozenset(
    {
        *(
            "",
            "password",
            "passw0rd",
            "postgres",
            "postgresql",
            "redis",
            "secret",
            "changeme",
            "change-me",
            "change_me",
        ),
        *("admin", "administrator", "root", "user", "guest", "headrace", "snowflake", "test", "default", "example"),
        *("123456", "12345678", "123456789", "qwerty", "letmein", "***"),
    }
)
_METADATA = "HEADRACE_METADATA__"
_OF_RECORDS = ("host", "port", "name", "user", "password", "sslmode", "ssl_ca_cert")

SHARED = (
    "is needed with HEADRACE_METADATA__PASSWORD: the records sign in with the credentials of the store, so whoever "
    "gets past the guard of a query or destination could write keys and runs; give them a role of their own that "
    "owns the schema headrace"
)
"""What to say of credentials that the store and the records share."""


REACHABLE = "is no loopback address, so that others can connect"
"""What to say of an address that others than this machine reach."""


def remote_addresses(settings: Settings) -> list[tuple[str, str]]:
    """The addresses to bind that others than this machine reach, by the settings that name them."""
    found = {"HEADRACE_HTTP__HOST": settings.http.host}
    if settings.worker.port is not None:
        found["HEADRACE_WORKER__HOST"] = settings.worker.host
    return [(name, host) for name, host in found.items() if not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def store_sign_in(settings: Settings) -> SignIn:
    """How the store of DB_* is signed in to."""
    database = settings.database
    return SignIn(
        host=database.host or "",
        port=database.port,
        database=database.name or "",
        user=database.user or "",
        password=_secret(database.password),
        sslmode=database.sslmode,
        ssl_ca_cert=str(database.ssl_ca_cert) if database.ssl_ca_cert else None,
    )


def records_sign_in(settings: Settings) -> SignIn:
    """How the records on Postgres are signed in to; what they do not say themselves is that of DB_*.

    Raises:
        ValueError: their URL is not one.
    """
    own, store = settings.metadata, store_sign_in(settings)
    if own.url is not None:
        return sign_in_of(own.url.get_secret_value())
    found = replace(store, database=own.name or store.database)
    if own.host is not None:
        found = replace(found, host=own.host, port=5432, sslmode=None, ssl_ca_cert=None, user="", password=None)
    if own.port is not None:
        found = replace(found, port=own.port)
    if own.user is not None:
        found = replace(found, user=own.user, password=_secret(own.password))
    if own.sslmode is not None:
        found = replace(found, sslmode=own.sslmode, ssl_ca_cert=str(own.ssl_ca_cert) if own.ssl_ca_cert else None)
    return found


def shares_credentials(settings: Settings) -> bool:
    """Whether the records sign in as the store of the settings does."""
    if settings.store.kind != POSTGRES.name or settings.metadata.kind != "postgres":
        return False
    try:
        records = records_sign_in(settings)
    except ValueError:
        return False
    return _who(records) == _who(store_sign_in(settings))


def _who(found: SignIn) -> tuple[str, int, str]:
    host = found.host.lower().rstrip(".").strip("[]")
    return "localhost" if host in ("127.0.0.1", "::1") else host, found.port, found.user


def _secret(value: SecretStr | None) -> Secret | None:
    return Secret(value.get_secret_value()) if value is not None else None


def _problems_of_databases(settings: Settings) -> Iterator[Problem]:
    """Where the store and the records are, if they are on Postgres, and how TLS is used."""
    if settings.store.kind == POSTGRES.name:
        for name in ("host", "name", "user"):
            if getattr(settings.database, name) is None:
                yield Problem(f"DB_{name.upper()}", "settings.missing", "is required because store.kind is postgres")
    for section, prefix in ((settings.database, "HEADRACE_DATABASE__"), (settings.metadata, _METADATA)):
        if (section.sslmode in VERIFIED) != (section.ssl_ca_cert is not None):
            why = "is given if SSLMODE is verify-ca or verify-full, and only then"
            yield Problem(f"{prefix}SSL_CA_CERT", "settings.missing", why)
    if settings.metadata.kind == "postgres":
        yield from _problems_of_records(settings)


def _problems_of_records(settings: Settings) -> Iterator[Problem]:
    given = [name for name in _OF_RECORDS if getattr(settings.metadata, name) is not None]
    try:
        found = records_sign_in(settings)
    except ValueError as error:
        yield Problem(f"{_METADATA}URL", "settings.value", str(error))
        return
    if settings.metadata.url is not None:
        for name in given:
            yield Problem(
                f"{_METADATA}{name.upper()}", "settings.contradiction", "says what HEADRACE_METADATA__URL says"
            )
        return
    if settings.metadata.password is not None and settings.metadata.user is None:
        yield Problem(
            f"{_METADATA}USER", "settings.missing", "is required because HEADRACE_METADATA__PASSWORD is given"
        )
    prefix = _METADATA if settings.metadata.host is not None else "DB_"
    for name, value in {"host": found.host, "name": found.database, "user": found.user}.items():
        is_told = settings.store.kind == POSTGRES.name and prefix == "DB_"
        if not value and not is_told and not (name == "user" and settings.metadata.password is not None):
            yield Problem(
                f"{prefix}{name.upper()}", "settings.missing", "is required because metadata.kind is postgres"
            )


def problems_across(settings: Settings) -> Iterator[Problem]:
    """Check what only several settings together can tell: sections in use, and the rules of production."""
    yield from _problems_of_databases(settings)
    for section, kind in {"queue": settings.queue.kind, "cache": settings.cache.kind}.items():
        if kind == "redis" and settings.redis.host is None:
            yield Problem("REDIS_HOST", "settings.missing", f"is required because {section}.kind is redis")
    if settings.queue.kind == "kafka" and settings.kafka.bootstrap_servers is None:
        yield Problem("KAFKA_BOOTSTRAP_SERVERS", "settings.missing", "is required because queue.kind is kafka")
    if settings.data_root is not None:
        why = (
            "is for several organizations, which a later version brings; list the folders of data in "
            "HEADRACE_DATA_ROOTS"
        )
        yield Problem("HEADRACE_DATA_ROOT", "settings.later", f"{why}, and write paths relative to the project")
    if settings.run.batch_size is not None and settings.run.batch_size > settings.run.max_batch_size:
        yield Problem("BATCH_SIZE", "settings.range", "is larger than MAX_BATCH_SIZE")
    if not settings.http.allow_remote:
        for name, _ in remote_addresses(settings):
            yield Problem(name, "settings.remote", f"{REACHABLE}; say so with HEADRACE_HTTP__ALLOW_REMOTE=true")
    if settings.app.environment != "production":
        return
    if shares_credentials(settings):
        yield Problem(f"{_METADATA}USER", "settings.production", f"{SHARED}; sharing is for development")
    if settings.app.debug:
        yield Problem("DEBUG", "settings.production", "is not allowed in production")
    if settings.telemetry.rate < 0.1:
        name = "OTEL_SAMPLING_RATE" if settings.telemetry.sampling_rate < 0.1 else "OTEL_TRACES_SAMPLER"
        yield Problem(name, "settings.production", "keeps fewer than 0.1 of the traces, which production refuses")
    yield from _known_passwords(settings)


def _known_passwords(settings: Settings) -> Iterator[Problem]:
    """Passwords that everybody tries, as they stand or within a URL, whatever section it belongs to."""
    told = set[str]()
    for name, value in _texts(settings, ()):
        found = [value.get_secret_value()] if isinstance(value, SecretStr) else []
        found += _passwords_within(value.get_secret_value() if isinstance(value, SecretStr) else value)
        if any(_is_known(password) for password in found):
            told.add(name)
    for name in sorted(told):
        yield Problem(name, "settings.production", "is a well-known value, which production refuses")


def _texts(section: BaseModel, above: tuple[str, ...]) -> Iterator[tuple[str, str | SecretStr]]:
    """Every setting that is a text, by the name that people give it."""
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), (*above, name)
        if isinstance(value, BaseModel):
            yield from _texts(value, path)
        elif isinstance(value, str | SecretStr):
            extra = field.json_schema_extra
            names = extra.get("env") if isinstance(extra, dict) else None
            yield str(names[0]) if isinstance(names, list) and names else f"HEADRACE_{'__'.join(path).upper()}", value


def secrets_of(settings: Settings) -> Iterator[str]:
    """The values of all settings that are secrets, and the passwords within addresses."""
    for _, value in _texts(settings, ()):
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if isinstance(value, SecretStr):
            yield text
        yield from _passwords_within(text)


def _passwords_within(text: str) -> Iterator[str]:
    """The passwords of URLs that a text consists of, in the authority or as a parameter; an empty one counts where one
    is given.
    """
    for url in text.split(","):
        _, separator, rest = url.partition("://")
        if not separator:
            continue
        authority, _, parameters = rest.partition("?")
        user, at, _ = authority.rpartition("@")
        _, colon, password = user.partition(":")
        if at and colon:
            yield unquote(password)
        yield from (value for name, value in parse_qsl(parameters) if "pass" in name.lower())


def _is_known(password: str) -> bool:
    return password.strip().lower() in _KNOWN_SECRETS
