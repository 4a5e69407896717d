"""Where a Postgres is, connecting to it, and its errors as ours."""

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote as percent_encode

from domain.errors import (
    InvalidInputError,
    MissingExtraError,
    NotFoundError,
    PlatformError,
    QueryRefusedError,
    SchemaMismatchError,
    StoreUnavailableError,
)
from domain.pipelines.read_set import Lane
from domain.ports.secrets import Secret
from infrastructure.postgres_settings import pinned

# What Postgres says first names the constraint; what it says after that holds the row.
_CONSTRAINT = re.compile(r"(?:(?:unique|foreign key|check|exclusion) constraint|(?<=null value in )column) \"[^\"]+\"")
# A peer that has fallen silent is noticed within a minute, by probes when idle and by unanswered data when busy.
_ALIVE = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "45000",
}
# What the environment would have libpq do and no other driver: two connections of one store would differ.
_UNMOVED = {"client_encoding": "UTF8", "hostaddr": ""}
# The driver asks for the names of types before anything can be set, and knows none that comes in quotes.
_UNQUOTED = "-c quote_all_identifiers=off"


@dataclass(frozen=True)
class PostgresAddress:
    """Where a Postgres is and who signs in."""

    host: str
    port: int
    database: str
    user: str
    password: Secret | None = None
    sslmode: str | None = None
    ssl_ca_cert: str | None = None
    connect_timeout_seconds: int = 10

    def url(self, *, driver: str = "postgresql", application_name: str | None = None, settings: str = "") -> str:
        """Return the URL with the password in it, to be handed to a driver and nowhere else."""

        def encoded(text: str) -> str:
            return percent_encode(text, safe="")

        secret = f":{encoded(self.password.reveal())}" if self.password is not None else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        base = f"{driver}://{encoded(self.user)}{secret}@{host}:{self.port}/{encoded(self.database)}"
        options = {"sslmode": self.sslmode, "sslrootcert": self.ssl_ca_cert}
        if driver == "postgresql":  # What libpq understands besides.
            options |= {
                "application_name": application_name,
                "connect_timeout": str(self.connect_timeout_seconds),
                **_ALIVE,
                "options": settings,
                **_UNMOVED,
            }
        elif driver != "postgres":
            return base
        given = "&".join(f"{name}={encoded(value)}" for name, value in options.items() if value is not None)
        return f"{base}?{given}" if given else base


def lane_session(lane: Lane, fence: int | None) -> str:
    """Name the sessions of a lane, so that a take-over finds those of its stopped predecessors."""
    digest = hashlib.sha256(str(lane).encode()).hexdigest()[:16]
    return f"headrace:{digest}" if fence is None else f"headrace:{digest}:{fence}"


def translate(error: Exception) -> PlatformError:
    """Turn a driver's error into one of ours; DETAIL, which may hold row data, is never passed on."""
    state = getattr(error, "sqlstate", None) or ""
    text = str(error)
    first_line = re.sub(r"^.*?ERROR:\s*", "", text.splitlines()[0])[:300] if text else ""
    if state in ("42P01", "3F000"):
        return NotFoundError(first_line, code="table.not_found")
    if state == "42501":
        return InvalidInputError(f"Postgres does not allow it: {first_line}", code="store.permission")
    if state == "25006":
        return QueryRefusedError("Only a statement that reads is allowed.", code="query.not_readonly")
    if state.startswith("42"):
        return InvalidInputError(first_line, code="query.invalid")
    if state.startswith("23"):
        constraint = _CONSTRAINT.search(first_line)
        return SchemaMismatchError(
            f"A row violates a constraint of the table{f': {constraint[0]}' if constraint else ''}.",
            code="destination.constraint",
        )
    if state.startswith("22"):
        return SchemaMismatchError("Postgres could not take a value: wrong type, out of range, or too long.")
    if state == "53100":
        return StoreUnavailableError("The disk of the Postgres server is full.", code="disk_full")
    if state == "55P03":
        return StoreUnavailableError("A lock was not to be had in time.", code="store.locked")
    if state in ("40001", "40P01"):
        return StoreUnavailableError("Postgres chose this transaction to end a deadlock.", code="store.conflict")
    if "would overflow" in text or "exceeds PostgreSQL" in text or "out of range" in text:
        return SchemaMismatchError(
            "A time or interval is beyond what can be carried, such as infinity; turn it into NULL in the source query.",
            code="source.time_out_of_range",
        )
    if "invalid byte sequence" in text or "0x00" in text:
        return SchemaMismatchError("Postgres text cannot hold a NUL character.")
    return StoreUnavailableError("Postgres broke off, or the connection to it did.")


def connect(address: PostgresAddress, application_name: str) -> Any:
    """Connect with ADBC, under the settings that every session of ours has; blocking.

    Raises:
        MissingExtraError: the driver is not installed.
        StoreUnavailableError: `store.tls`, `store.sign_in` or `store.unavailable`.
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ModuleNotFoundError as error:
        raise MissingExtraError("postgres", "A Postgres connection") from error
    place = f"{address.host}:{address.port}"

    def opened(settings: str = "") -> tuple[Any, bool]:
        connection = dbapi.connect(address.url(application_name=application_name, settings=settings), autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {pinned()}")
                return connection, isinstance(cursor.fetchone()[0], str)
        except BaseException:
            connection.close()
            raise

    try:
        connection, knows_types = opened()
        if not knows_types:
            connection.close()
            connection, _ = opened(_UNQUOTED)
        return connection
    except Error as error:
        text = str(error)
        if re.search(r"certificate|does not support SSL|SSL error", text):
            raise StoreUnavailableError(
                f"Postgres at {place} and sslmode {address.sslmode} do not go together: the server speaks no TLS, or its "
                "certificate is not vouched for by ssl_ca_cert.",
                code="store.tls",
            ) from error
        if re.search(r"authentication failed|does not exist|no password supplied|no pg_hba", text):
            raise StoreUnavailableError(
                f"Postgres at {place} refused to sign in {address.user} to the database {address.database}.",
                code="store.sign_in",
            ) from error
        raise StoreUnavailableError(f"Postgres at {place} cannot be reached.") from error
