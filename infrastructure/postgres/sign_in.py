"""How every Postgres session of ours signs in: with what its address says, and nothing of the process's surroundings.

Both drivers look for passwords, certificates and hosts in variables and in files of the home folder, and send the
password as it is to any server that asks for it so. Whoever may write a connection may name such a server.
"""

import asyncio
import os
import re
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.parse import quote as percent_encode

from domain.ports.secrets import Secret
from infrastructure.postgres.meter import Before

_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
VERIFIED = ("verify-ca", "verify-full")
_NOWHERE = "/dev/null/none"  # Where a driver would look into the home folder if it were told of no file at all.
# An empty or ordinary value for all that libpq would take from the environment.
_TOLD = {
    "passfile": _NOWHERE,
    "requirepeer": "",
    "channel_binding": "prefer",
    "gssencmode": "disable",
    "krbsrvname": "postgres",
    "gssdelegation": "0",
    "sslcertmode": "disable",
    "sslcert": "",
    "sslkey": "",
    "sslcrl": _NOWHERE,
    "sslcrldir": "",
    "sslcompression": "0",
    "sslsni": "1",
    "sslnegotiation": "postgres",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
}
# What libpq takes from there and has no other word for.
_UNTOLD = ("PGSERVICE", "PGTZ", "PGDATESTYLE", "PGGEQO")
_LONGEST_MESSAGE = 65_536
_MOST_BEGINNING_BYTES = 2**20  # Settings and notices, between being let in and being asked.
_MOST_ITERATIONS = 200_000  # The driver does them on the loop; a server uses 4096 unless it is set otherwise.
_OK, _CLEAR, _MD5, _SASL, _SASL_MORE, _SASL_END = 0, 3, 5, 10, 11, 12


@dataclass(frozen=True)
class SignIn:
    """Who signs in where, and how."""

    host: str
    port: int
    database: str
    user: str
    password: Secret | None = None
    sslmode: str | None = None
    ssl_ca_cert: str | None = None
    require_auth: str | None = None

    @property
    def mode(self) -> str:
        """How TLS is used."""
        return self.sslmode or "prefer"

    def url(self) -> str:
        """Return the URL that `sign_in_of` reads, with the password in it."""

        def encoded(text: str) -> str:
            return percent_encode(text, safe="")

        secret = f":{encoded(self.password.reveal())}" if self.password is not None else ""
        is_socket = self.host.startswith("/")
        host = "" if is_socket else f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        query = {
            "host": self.host if is_socket else None,
            "sslmode": self.sslmode,
            "sslrootcert": self.ssl_ca_cert,
            "require_auth": self.require_auth,
        }
        given = "&".join(f"{name}={encoded(value)}" for name, value in query.items() if value is not None)
        place = f"{host}:{self.port}/{encoded(self.database)}"
        return f"postgresql+asyncpg://{encoded(self.user)}{secret}@{place}" + (f"?{given}" if given else "")

    def for_libpq(self) -> dict[str, str]:
        """Return the parameters beside host, port, database, user and password that the environment could give
        otherwise.
        """
        forbidden = ("!gss", "!sspi") if self.mode in VERIFIED else ("!password", "!gss", "!sspi")
        told = {
            **_TOLD,
            "sslmode": self.mode,
            "sslrootcert": self.ssl_ca_cert or _NOWHERE,
            "require_auth": self.require_auth or ",".join(forbidden),
        }
        return told if self.password is not None else told | {"password": ""}


def sign_in_of(url: str) -> SignIn:
    """Read the URL of a Postgres, in which nothing may be left to the surroundings.

    Raises:
        ValueError: it leaves something out, or says what is not understood; never with the password in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("is not the URL of a Postgres: postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
    if parts.scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise ValueError("is not the URL of a Postgres: postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
    mode = query.pop("sslmode", query.pop("ssl", None))
    host = query.pop("host", None) or parts.hostname or ""
    found = SignIn(
        host=host if host.startswith("/") else host.strip("[]"),
        port=port,
        database=unquote(parts.path.removeprefix("/")),
        user=unquote(parts.username or ""),
        password=Secret(unquote(parts.password)) if parts.password is not None else None,
        sslmode=mode,
        ssl_ca_cert=query.pop("sslrootcert", None),
        require_auth=query.pop("require_auth", None),
    )
    for what, value in {"host": found.host, "database": found.database, "user": found.user}.items():
        if not value:
            raise ValueError(f"names no {what}")
    if query:
        raise ValueError("may end in ?sslmode=…&sslrootcert=…&require_auth=scram-sha-256, and in nothing else")
    if found.mode not in _MODES or found.require_auth not in (None, "scram-sha-256"):
        raise ValueError(f"has an unknown sslmode or require_auth; known are {', '.join(_MODES)} and scram-sha-256")
    if (found.mode in VERIFIED) != (found.ssl_ca_cert is not None):
        raise ValueError("names sslrootcert if sslmode is verify-ca or verify-full, and only then")
    return found


def forget_surroundings() -> None:
    """Take away what libpq would read and cannot be told otherwise."""
    for name in _UNTOLD:
        os.environ.pop(name, None)


async def signed_in(target: SignIn, *, timeout: float, application_name: str, loop: Any = None) -> Any:
    """Connect with asyncpg. A `loop` of one's own may choose the address that is dialed.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError: there is no
        session.
    """
    import asyncpg

    async def attempt(mode: str) -> Any:
        context = _context(mode, target.ssl_ca_cert)
        connection = await asyncpg.connect(
            host=target.host.strip("[]"),
            port=target.port,
            database=target.database,
            user=target.user,
            password=target.password.reveal() if target.password is not None else "",
            ssl=context or False,
            direct_tls=False,
            target_session_attrs="any",
            krbsrvname="postgres",
            gsslib="gssapi",
            timeout=timeout,
            server_settings={"application_name": application_name},
            loop=_WatchingLoop(loop or asyncio.get_running_loop(), target, is_tls=context is not None),
        )
        innermost(connection._transport).set_protocol(
            connection._protocol
        )  # What watched has nothing to watch any more.
        return connection

    if target.mode != "prefer":
        return await attempt(target.mode)
    try:
        return await attempt("require")
    except asyncpg.InvalidPasswordError:
        raise
    except (ssl.SSLError, ConnectionError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        if isinstance(error, ConnectionRefusedError):
            raise
    return await attempt("disable")  # The server speaks no TLS, or lets this user in without it only.


def _context(mode: str, ca: str | None) -> ssl.SSLContext | None:
    """What TLS checks; the driver's own way to it would offer the certificates of the home folder."""
    if mode == "disable":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    if mode in VERIFIED:
        context.load_verify_locations(cafile=ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


class _WatchingLoop:
    """An event loop whose connections to a Postgres are watched until the session is let in."""

    def __init__(self, loop: Any, target: SignIn, *, is_tls: bool) -> None:
        self._loop = loop
        self._target = target
        self._is_tls = is_tls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], *place: Any, **options: Any) -> Any:
        if self._is_tls:  # What comes first is the answer whether there will be TLS.
            return await self._loop.create_connection(factory, *place, **options)
        return await self._watched(self._loop.create_connection, factory, *place, **options)

    async def create_unix_connection(self, factory: Callable[[], Any], *place: Any, **options: Any) -> Any:
        return await self._watched(self._loop.create_unix_connection, factory, *place, **options)

    async def start_tls(self, *given: Any, **options: Any) -> Any:
        return _WatchedTransport(await self._loop.start_tls(*given, **options), self._target)

    async def _watched(
        self, create: Callable[..., Any], factory: Callable[[], Any], *place: Any, **options: Any
    ) -> Any:
        transport, watch = await create(lambda: _Watch(factory(), self._target), *place, **options)
        return transport, watch.inner


class _WatchedTransport:
    """A transport under TLS, whose protocol is watched from the moment it is set."""

    def __init__(self, transport: Any, target: SignIn) -> None:
        self._transport = transport
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def set_protocol(self, protocol: Any) -> None:
        watch = _Watch(protocol, self._target)
        watch.transport = self._transport
        self._transport.set_protocol(watch)


def innermost(transport: Any) -> Any:
    """The transport of a session that has been let in, without what watched that."""
    return transport._transport if isinstance(transport, _WatchedTransport) else transport


class _Watch(Before):
    """Hears what a server says before the driver does, until it lets the session in, and refuses what it
    may not ask.
    """

    def __init__(self, inner: Any, target: SignIn) -> None:
        super().__init__(inner)
        self.transport: Any = None
        self._target = target
        self._held = bytearray()
        self._is_over = False
        self._left: int | None = None  # Of what may come before the session begins, once it has been let in.
        self._is_proven = False  # The server has shown that it knows the password, too.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._left is not None:
            self._pass(data, self._left)
            return
        self._held += data
        while len(self._held) >= 5:
            length = struct.unpack_from("!I", self._held, 1)[0] + 1
            if not 5 <= length <= _LONGEST_MESSAGE:
                self._refuse("server sent a message that is no part of signing in")
                return
            if len(self._held) < length:
                return
            message = bytes(self._held[:length])
            why = self._forbids(message)
            if why is not None:
                self._refuse(
                    f'authentication method requirement "{self._target.for_libpq()["require_auth"]}" failed: {why}'
                )
                return
            if message[:1] == b"R" and message[5:9] == struct.pack("!I", _OK):
                self._let_in()
                return
            del self._held[:length]
            self.inner.data_received(message)

    def _forbids(self, message: bytes) -> str | None:
        """Why the driver may not hear of this message."""
        if message[:1] in b"ENv":  # An error, a notice, or another version of the protocol.
            return None
        if message[:1] != b"R" or len(message) < 9:
            return "server did not complete authentication"
        is_strict = self._target.require_auth is not None
        match struct.unpack_from("!I", message, 5)[0]:
            case 0:
                return "server did not complete authentication" if is_strict and not self._is_proven else None
            case 3 if is_strict or self._target.mode not in VERIFIED:
                return "server requested a cleartext password"
            case 5 if is_strict:
                return "server requested a hashed password"
            case 11 if _iterations(message) > _MOST_ITERATIONS:
                return "server requested too much work"
            case 12:
                self._is_proven = True  # The driver has checked it before it hears of anything else.
            case method if method not in (_CLEAR, _MD5, _SASL, _SASL_MORE):
                return "server requested another method"
        return None

    def _let_in(self) -> None:
        """What follows is the driver's, and little until it asks for anything."""
        self._left = _MOST_BEGINNING_BYTES
        held, self._held = bytes(self._held), bytearray()
        self._pass(held, self._left)

    def _pass(self, data: bytes, left: int) -> None:
        self._left = left - len(data)
        if self._left >= 0:
            self.inner.data_received(data)
        else:
            self._is_over = True
            self.transport.abort()

    def _refuse(self, why: str) -> None:
        """Tell the driver so in the server's place."""
        self._is_over = True
        self._held.clear()
        fields = b"SFATAL\0VFATAL\0C28000\0M" + why.encode() + b"\0\0"
        self.inner.data_received(b"E" + struct.pack("!I", len(fields) + 4) + fields)
        self.transport.close()


def _iterations(message: bytes) -> int:
    found = re.search(rb"(?:^|,)i=([0-9]+)", message[9:])
    return int(found[1][:19]) if found else 0
