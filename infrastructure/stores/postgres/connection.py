"""Where a Postgres is, and connecting to it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote as percent_encode

from domain.errors import MissingExtraError, PlatformError
from domain.pipelines.dialing import Place
from domain.ports.secrets import Secret
from domain.runs.lane import Lane, LaneOwner
from infrastructure.dialing import Dialer
from infrastructure.postgres.settings import pinned
from infrastructure.postgres.sign_in import SignIn, forget_surroundings
from infrastructure.stores.postgres.errors import not_connected
from infrastructure.stores.postgres.sockets import MARKS
from infrastructure.stores.postgres.watching import Line

# A peer that has fallen silent is noticed within a minute or two, by probes when idle and by unanswered data when busy:
# the line's mark says after how long.
_ALIVE = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "4",
}
# What the environment would have libpq do and no other driver: two connections of one store would differ.
_UNMOVED = {"client_encoding": "UTF8"}
# The driver asks for the names of types before anything can be set, and knows none that comes in quotes.
_UNQUOTED = "-c quote_all_identifiers=off"


_SPARE_SECONDS, _PROMPT_SECONDS = 5.0, 10
_PATIENCE = 3
"""So often, a second apart, a statement is asked to stop before its session is ended."""

READER = "headrace:reading"
"""How the names of sessions that read and never write begin, so that no end of a read is held back by them."""


@dataclass(frozen=True)
class PostgresAddress:
    """Where a Postgres is and who signs in.

    Queries may call the functions of `trusted_schemas`, and use their types and operators.
    A `dialer` says which addresses may be dialed; without one, as for the store of the settings, the driver finds them.
    `dialed` are those of one attempt: drivers go on knowing the server by its name, which is what TLS checks.
    """

    host: str
    port: int
    database: str
    user: str
    password: Secret | None = None
    sslmode: str | None = None
    ssl_ca_cert: str | None = None
    connect_timeout_seconds: int = 10
    require_auth: str | None = None
    trusted_schemas: tuple[str, ...] = ()
    dialer: Dialer | None = None
    dialed: tuple[str, ...] = ()

    def resolved(self) -> "PostgresAddress":
        """Return this with the addresses that one attempt to connect may dial; blocking.

        Raises:
            InvalidInputError: it may dial none (`connection.host_forbidden`).
            OSError: the host cannot be found.
        """
        if self.dialer is None:
            return self
        place = Place(self.host, self.port, self.database)
        return replace(self, dialed=self.dialer.addresses(place, seconds=self.connect_timeout_seconds))

    @property
    def place(self) -> str:
        """What the server is called in errors."""
        return f"Postgres at {self.host}:{self.port}"

    @property
    def prompt_seconds(self) -> float:
        """How long an answer may take for which the server has nothing to do and nobody to wait for."""
        return float(max(self.connect_timeout_seconds, _PROMPT_SECONDS))

    def url(
        self,
        *,
        driver: str = "postgresql",
        application_name: str | None = None,
        settings: str = "",
        mark: int = MARKS[0],
    ) -> str:
        """Return the URL with the password in it, to be handed to a driver and nowhere else."""

        def encoded(text: str) -> str:
            return percent_encode(text, safe="")

        secret = f":{encoded(self.password.reveal())}" if self.password is not None else ""
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        # libpq pairs each host with an address; the other driver is told where to dial by its loop.
        hosts = [f"{host}:{self.port}"] * (len(self.dialed) or 1 if driver == "postgresql" else 1)
        base = f"{driver}://{encoded(self.user)}{secret}@{','.join(hosts)}/{encoded(self.database)}"
        if driver != "postgresql":
            return base
        options = {
            **self.sign_in.for_libpq(),
            "application_name": application_name or "headrace",
            "connect_timeout": str(self.connect_timeout_seconds),
            **_ALIVE,
            "tcp_user_timeout": str(mark),
            "options": settings,
            **_UNMOVED,
            "hostaddr": ",".join(self.dialed),
        }
        return f"{base}?{'&'.join(f'{name}={encoded(value)}' for name, value in options.items())}"

    @property
    def sign_in(self) -> SignIn:
        """How sessions of every driver sign in."""
        return SignIn(
            host=self.host,
            port=self.port,
            database=self.database,
            user=self.user,
            password=self.password,
            sslmode=self.sslmode,
            ssl_ca_cert=self.ssl_ca_cert,
            require_auth=self.require_auth,
        )

    def not_connected(self, error: Exception) -> PlatformError:
        """Say why there is no session here."""
        place = f"{self.host}:{self.port}"
        return not_connected(error, place=place, user=self.user, database=self.database, sslmode=self.sslmode)


def lane_session(lane: Lane, fence: int | None) -> str:
    """Name the sessions of a lane, so that a take-over finds those of its stopped predecessors."""
    digest = hashlib.sha256(str(lane).encode()).hexdigest()[:16]
    return f"headrace:{digest}" if fence is None else f"headrace:{digest}:{fence}"


@dataclass(frozen=True)
class Readers:
    """The names of the sessions that read for a lane's owner, by which the next one finds those of a stopped
    predecessor.

    Several installations may read one database for lanes of the same name, and their fences say nothing of each other.
    """

    installation: str = ""
    by: LaneOwner | None = None

    @property
    def name(self) -> str:
        """The name of a session; its fence comes last."""
        return READER if self.by is None else f"{self.prefix}{self.by.fence}"

    @property
    def prefix(self) -> str:
        """What the names of all owners of the lane begin with."""
        lane = self.by.lane if self.by is not None else ""
        return f"{READER}:{hashlib.sha256(f'{self.installation}/{lane}'.encode()).hexdigest()[:16]}:"


NOBODY = Readers()
"""Whoever reads for no owner."""


def connect(address: PostgresAddress, application_name: str, line: Line | None = None) -> Any:
    """Connect with ADBC, under the settings that every session of ours has; blocking. The line is where it can be
    watched.

    Raises:
        MissingExtraError: the driver is not installed.
        StoreUnavailableError: the server cannot be reached now, or gives no answer.
        StoreRefusedError: `store.tls`, `store.sign_in`, `store.database_missing`, `store.host_unknown` or
        `store.answer_too_large`.
        InvalidInputError: the host may not be dialed (`connection.host_forbidden`).
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ModuleNotFoundError as error:
        raise MissingExtraError("postgres", "A Postgres connection") from error

    forget_surroundings()
    line = line or Line(address.place)

    def opened(where: PostgresAddress, settings: str = "") -> tuple[Any, bool]:
        url = where.url(application_name=application_name, settings=settings, mark=line.mark)
        connection = dbapi.connect(url, autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {pinned()}")
                return connection, isinstance(cursor.fetchone()[0], str)
        except BaseException:
            connection.close()
            raise

    try:
        where = address.resolved()
        with line.dialing(address.connect_timeout_seconds + _SPARE_SECONDS):
            connection, knows_types = opened(where)
            if not knows_types:
                connection.close()
                connection, _ = opened(where, _UNQUOTED)
    except (Error, OSError) as error:
        raise address.not_connected(error) from error
    line.found()
    return connection


class LastResort:
    """Ends a session that was asked to stop and goes on: a function that is called may catch the wish, and never the
    end.
    """

    def __init__(self, address: PostgresAddress) -> None:
        self._address, self._asked = address, 0
        self._backend: int | None = None

    def know(self, ask: Callable[[str], Sequence[Any]]) -> None:
        """Ask which process the session is, before it does what may not stop; blocking."""
        if self._backend is None:
            self._backend = int(ask("SELECT pg_catalog.pg_backend_pid()")[0][0])

    def asked_to_stop(self) -> None:
        """Count, and end the session once it was asked often enough; blocking."""
        self._asked += 1
        if self._asked != _PATIENCE or self._backend is None:
            return
        line = Line(self._address.place)
        connection = connect(self._address, "headrace:ending", line)
        try:
            with line.answering(seconds=self._address.prompt_seconds), connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity AS a "
                    "WHERE a.pid OPERATOR(pg_catalog.=) $1 AND a.usename OPERATOR(pg_catalog.=) session_user "
                    "AND a.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()",
                    (self._backend,),
                )
                cursor.fetchall()
        finally:
            connection.close()
            line.close()
