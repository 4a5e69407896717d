"""Sessions with a Postgres, of every driver: no password in clear, nothing of the process's surroundings."""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import uvloop

from domain.errors import PlatformError
from domain.ports.secrets import Secret
from infrastructure.metadata.records import SqlRecords
from infrastructure.stores.postgres.connection import PostgresAddress, connect
from tests.collector import collecting
from tests.e2e.inside import inside
from tests.e2e.projects import new_project, write
from tests.links import connected
from tests.security.fake_postgres import (
    CLEAR,
    KERBEROS,
    MD5,
    OK,
    READY,
    SCRAM,
    FakePostgres,
    TlsRelay,
    certificate,
    much_work,
)
from tests.servers import PostgresServer

CANARY = "canary-of-the-password"
ADDRESS = PostgresAddress("127.0.0.1", 0, "postgres", "reader", Secret(CANARY), connect_timeout_seconds=5)
DOORS = ("adbc", "asyncpg", "records")


async def sign_in(door: str, address: PostgresAddress) -> None:
    """Open and close a session by one of the ways to a Postgres."""
    if door == "adbc":
        (await asyncio.to_thread(connect, address, "headrace")).close()
    elif door == "asyncpg":
        async with connected(address, "headrace"):
            pass
    else:
        given = {"sslmode": address.sslmode, "sslrootcert": address.ssl_ca_cert, "require_auth": address.require_auth}
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if value)
        url = address.url(driver="postgresql+asyncpg") + (f"?{query}" if query else "")
        records = SqlRecords(url, timeout_seconds=5, upgrade_on_open=False)
        try:
            await records.open()
        except PlatformError as error:
            if error.code != "records.behind":  # They are reached, and nobody has made them.
                raise
        finally:
            await records.close()


async def refusal(door: str, address: PostgresAddress) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await sign_in(door, address)
    assert CANARY not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls(certified: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certified)
    context.load_verify_locations(certified[0])
    context.verify_mode = ssl.CERT_OPTIONAL  # It would take the certificate of a client that offers one.
    return context


async def large_text(address: PostgresAddress) -> int:
    """Read a large text in a session whose statement before was canceled."""
    async with connected(address, "headrace") as connection:
        with pytest.raises(TimeoutError):
            await connection.fetchval("SELECT pg_sleep(30)", timeout=0.1)
        return len(await connection.fetchval("SELECT repeat('x', 3000000)"))


@pytest.fixture(scope="module")
def strict() -> Iterator[PostgresServer]:
    """A real server whose roles sign in by the methods that they are named for."""
    server = PostgresServer()
    server.start()
    try:
        roles = {"trust": "scram-sha-256", "md5": "md5", "scram": "scram-sha-256", "password": "scram-sha-256"}
        for name, kind in roles.items():
            server.psql(
                f"SET password_encryption = '{kind}'; CREATE ROLE \"{name}\" LOGIN SUPERUSER PASSWORD '{CANARY}'"
            )
        methods = {
            "trust": "trust",
            "md5": "md5",
            "scram": "scram-sha-256",
            "password": "password",
            "postgres": "trust",
        }
        lines = "\n".join(f"host all {name} 127.0.0.1/32 {method}" for name, method in methods.items())
        server.psql(f"COPY (SELECT unnest(string_to_array('{lines}', E'\\n'))) TO '{server.psql('SHOW hba_file')}'")
        server.psql("SELECT pg_reload_conf()")
        yield server
    finally:
        server.stop()


@pytest.mark.line("29")
@pytest.mark.parametrize("is_slow", [False, True], ids=["at-once", "byte-by-byte"])
@pytest.mark.parametrize("mode", [None, "disable", "prefer", "require"])
@pytest.mark.parametrize("door", DOORS)
async def test_password_is_not_sent_in_clear_to_whoever_asks(
    door: str, mode: str | None, is_slow: bool, tls: ssl.SSLContext
) -> None:
    server = FakePostgres(CLEAR, OK + READY, tls=tls if mode in ("prefer", "require") else None, is_slow=is_slow)
    error = await refusal(door, replace(ADDRESS, port=server.port, sslmode=mode))
    server.close()

    assert error.code == f"{'records' if door == 'records' else 'store'}.password_in_clear"
    assert "scram-sha-256" in error.message
    assert CANARY.encode() not in server.received
    assert b"reader" in server.received


@pytest.mark.line("29")
@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
@pytest.mark.parametrize("door", DOORS)
async def test_password_is_sent_in_clear_to_a_server_that_is_known(
    door: str, mode: str, tls: ssl.SSLContext, certified: tuple[Path, Path]
) -> None:
    server = FakePostgres(CLEAR, tls=tls)
    await refusal(door, replace(ADDRESS, port=server.port, sslmode=mode, ssl_ca_cert=str(certified[0])))
    server.close()

    assert CANARY.encode() in server.received


@pytest.mark.line("29")
@pytest.mark.parametrize("user", ["trust", "md5", "scram"])
@pytest.mark.parametrize("door", DOORS)
async def test_other_methods_are_as_good_as_before(door: str, user: str, strict: PostgresServer) -> None:
    await sign_in(door, replace(ADDRESS, port=strict.port, user=user))


@pytest.mark.parametrize("door", ["asyncpg", "records"])
def test_loop_of_the_server_process_is_watched_alike(door: str, strict: PostgresServer, tls: ssl.SSLContext) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for context, mode in ((None, "disable"), (tls, "require")):
            server = FakePostgres(CLEAR, OK + READY, tls=context, is_slow=True)
            error = runner.run(refusal(door, replace(ADDRESS, port=server.port, sslmode=mode)))
            server.close()
            assert error.code.endswith(".password_in_clear")
            assert CANARY.encode() not in server.received
        for user in ("trust", "md5", "scram"):
            runner.run(sign_in(door, replace(ADDRESS, port=strict.port, user=user)))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("mode", ["prefer", "verify-full"])
def test_session_under_tls_carries_rows(
    mode: str,
    loop: Callable[[], asyncio.AbstractEventLoop],
    strict: PostgresServer,
    tls: ssl.SSLContext,
    certified: tuple[Path, Path],
) -> None:
    relay = TlsRelay(strict.port, tls)
    ca = str(certified[0]) if mode.startswith("verify") else None
    address = replace(ADDRESS, port=relay.port, user="scram", sslmode=mode, ssl_ca_cert=ca)
    with asyncio.Runner(loop_factory=loop) as runner:
        for door in DOORS:
            runner.run(sign_in(door, address))
        assert runner.run(large_text(address)) == 3_000_000
        assert runner.run(large_text(replace(ADDRESS, port=strict.port, user="scram", sslmode="disable"))) == 3_000_000
    relay.close()
    assert relay.secured >= 4


@pytest.mark.parametrize("door", DOORS)
async def test_real_server_that_wants_the_password_in_clear_is_refused(door: str, strict: PostgresServer) -> None:
    error = await refusal(door, replace(ADDRESS, port=strict.port, user="password"))
    assert error.code.endswith(".password_in_clear")


@pytest.mark.parametrize("door", DOORS)
async def test_wrong_password_is_told_as_before(door: str, strict: PostgresServer) -> None:
    error = await refusal(door, replace(ADDRESS, port=strict.port, user="scram", password=Secret("other")))
    assert error.code.endswith(".sign_in")


@pytest.mark.line("29")
@pytest.mark.parametrize(
    "says", [OK + READY, READY, MD5, CLEAR, KERBEROS], ids=["trust", "ready", "md5", "clear", "kerberos"]
)
@pytest.mark.parametrize("door", DOORS)
async def test_connection_may_insist_on_scram(door: str, says: bytes, strict: PostgresServer) -> None:
    server = FakePostgres(says, OK + READY)
    strictly = replace(ADDRESS, port=server.port, require_auth="scram-sha-256")
    error = await refusal(door, strictly)
    server.close()

    assert error.code != "records.behind"
    assert b"md5" not in server.received
    await sign_in(door, replace(strictly, port=strict.port, user="scram"))


@pytest.mark.line("29")
@pytest.mark.parametrize("door", ["asyncpg", "records"])
async def test_server_cannot_make_the_process_hash_for_hours(door: str) -> None:
    server = FakePostgres(SCRAM, much_work)
    started = time.monotonic()
    await refusal(door, replace(ADDRESS, port=server.port))
    server.close()
    assert time.monotonic() - started < 3


@pytest.fixture
def surroundings(certified: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose variables and home hold what drivers would take."""
    passwords = tmp_path / ".pgpass"
    passwords.write_text(f"*:*:*:*:{CANARY}\n")
    passwords.chmod(0o600)
    services = f"[ours]\nhost=127.0.0.2\nuser={CANARY}\npassword={CANARY}\noptions=-c work_mem=nonsense\n"
    (tmp_path / ".pg_service.conf").write_text(services)
    (tmp_path / ".postgresql").mkdir()
    certificate_, key = certified
    (tmp_path / ".postgresql/postgresql.crt").write_text(certificate_.read_text())
    (tmp_path / ".postgresql/postgresql.key").write_text(key.read_text())
    (tmp_path / ".postgresql/postgresql.key").chmod(0o600)
    (tmp_path / ".postgresql/root.crt").write_text("no certificate")
    monkeypatch.setenv("HOME", str(tmp_path))
    variables = {
        "PGPASSWORD": CANARY, "PGPASSFILE": str(passwords), "PGUSER": CANARY, "PGDATABASE": CANARY, "PGHOST": "127.0.0.2",
        "PGHOSTADDR": "127.0.0.2", "PGPORT": "1", "PGOPTIONS": f"-c application_name={CANARY} -c nonsense=1",
        "PGAPPNAME": CANARY, "PGSERVICEFILE": str(tmp_path / ".pg_service.conf"), "PGSYSCONFDIR": str(tmp_path),
        "PGSSLMODE": "verify-full", "PGREQUIRESSL": "1", "PGSSLROOTCERT": str(tmp_path / ".postgresql/root.crt"),
        "PGSSLCERT": str(certificate_), "PGSSLKEY": str(key), "PGSSLCERTMODE": "require", "PGSSLNEGOTIATION": "direct",
        "PGSSLCRL": str(tmp_path / ".pgpass"), "PGSSLCRLDIR": "/", "PGSSLSNI": "x", "PGSSLCOMPRESSION": "x",
        "PGSSLMINPROTOCOLVERSION": "TLSv1.9", "PGSSLMAXPROTOCOLVERSION": "x", "PGMINPROTOCOLVERSION": "x",
        "PGMAXPROTOCOLVERSION": "x", "PGREQUIREAUTH": "password", "PGCHANNELBINDING": "require", "PGGSSENCMODE": "require",
        "PGKRBSRVNAME": CANARY, "PGGSSLIB": "x", "PGGSSDELEGATION": "x", "PGTARGETSESSIONATTRS": "standby", "PGREQUIREPEER": CANARY,
        "PGLOADBALANCEHOSTS": "x", "PGCLIENTENCODING": "nonsense", "PGCONNECT_TIMEOUT": "x", "PGTZ": CANARY,
        "PGDATESTYLE": CANARY, "PGGEQO": CANARY, "SSLKEYLOGFILE": str(tmp_path / "keys.log"),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.line("30")
@pytest.mark.parametrize("service", ["ours", "unknown"])
@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
@pytest.mark.parametrize("door", DOORS)
async def test_nothing_of_the_surroundings_goes_to_a_server(
    door: str,
    mode: str,
    service: str,
    surroundings: None,
    tls: ssl.SSLContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGSERVICE", service)
    server = FakePostgres(MD5, tls=tls if mode != "disable" else None)
    await refusal(door, replace(ADDRESS, port=server.port, sslmode=mode, password=None))
    server.close()

    inner = hashlib.md5(f"{CANARY}reader".encode()).hexdigest()
    assert b"reader" in server.received
    assert CANARY.encode() not in server.received
    assert hashlib.md5(inner.encode() + b"salt").hexdigest().encode() not in server.received
    assert not any(server.peers)
    assert not (tmp_path / "keys.log").exists()


@pytest.mark.parametrize("door", DOORS)
async def test_sessions_are_the_same_whatever_surrounds_them(
    door: str, strict: PostgresServer, surroundings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICE", "unknown")
    await sign_in(door, replace(ADDRESS, port=strict.port, user="scram"))


async def test_secret_and_value_of_a_run_that_fails_are_in_no_span(
    strict: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, value = f"{CANARY}-wrong", "canary-of-a-row"
    monkeypatch.setenv("SECRET_SHOP", wrong)
    project = new_project(tmp_path / "project")
    write(project, "data/rows.csv", f"id,name\n1,{value}\n")
    with collecting() as collector:
        async with inside(project, HEADRACE_STORE__KIND="memory", **collector.environment()) as made:
            await made.put(
                "version: 1\nconnection: shop\nkind: postgres\nsecrets: {password: 'env:SECRET_SHOP'}\n"
                f"options: {{host: 127.0.0.1, port: {strict.port}, database: postgres, user: scram}}\n"
            )
            await made.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
            await made.pipeline(
                "away", "connection: shop, table: orders, key: [id]", "table: away", "retry: {attempts: 0}"
            )
            await made.pipeline(
                "odd",
                "connection: landing, path: rows.csv, key: [id]",
                "table: odd",
                f"transform: [{{sql: \"select cast(name as integer) as n from batch where name <> '{CANARY}'\"}}]\n",
            )
            ends = [await made.ran(name) for name in ("away", "odd")]
            with pytest.raises(ValueError, match="no number"), made.use_cases.telemetry.span("a bug"):
                raise ValueError(f"no number: postgresql://scram:{wrong}@h/d password={wrong}")

    assert [run.state.value for run in ends] == ["failed", "failed"]
    codes = {span.attributes["headrace.pipeline"]: span.attributes["error.type"] for span in collector.named("run")}
    assert codes == {"away": ends[0].error and ends[0].error.code, "odd": ends[1].error and ends[1].error.code}
    assert len(collector.spans) > 20
    assert not collector.says("canary")
