"""`headrace up`, `api` and `worker`: one process with one or both roles, drained in order when a signal comes."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator

import structlog
import uvicorn

from application.operations.health import Life
from domain.errors import PlatformError, Problem, SettingsError, UnavailableError
from domain.failpoints import fail_at
from domain.stores.kinds import KINDS
from entrypoints.composition.configuration import document_limits
from entrypoints.composition.container import Container
from entrypoints.composition.descriptors import allow_connections
from entrypoints.composition.lifecycle import ensure_admin_key, running
from entrypoints.composition.paths import Paths
from entrypoints.composition.refusing import refuse_waiting
from entrypoints.composition.server_file import read_server, remove_server, write_server
from entrypoints.http.app import create_app, create_probes
from entrypoints.http.hosts import AllowedHosts
from entrypoints.http.server import Server
from entrypoints.http.transport import TransportLimits, protocol_within
from entrypoints.http.turnstile import Turnstile
from entrypoints.use_cases import UseCases
from entrypoints.worker.background import BackgroundTasks
from entrypoints.worker.main import Worker
from entrypoints.worker.ticker import Ticker
from infrastructure.settings.rules import REACHABLE, SHARED, remote_addresses, shares_credentials
from infrastructure.settings.tree import Settings

API, WORKER = "api", "worker"
UP = f"{API} {WORKER}"

_LINGER_SECONDS = 0.3


def serve(container: Container, settings: Settings, roles: str) -> int:
    """Serve until a signal or a wish to drain; return the exit code.

    Raises:
        SettingsError: a role of its own needs stores, records and a queue that several processes can share.
    """
    if roles != UP:
        _refuse_unshared(settings, roles)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(container, settings, roles).run())


def _refuse_unshared(settings: Settings, role: str) -> None:
    chosen = {
        "HEADRACE_STORE__KIND": (settings.store.kind, [kind.name for kind in KINDS.values() if not kind.is_shared]),
        "HEADRACE_METADATA__KIND": (settings.metadata.kind, ("sqlite",)),
        "HEADRACE_QUEUE__KIND": (settings.queue.kind, ("memory",)),
    }
    problems = [
        Problem(name, "settings.unshared", f"is {kind}, which one process owns: headrace {role} needs one to share")
        for name, (kind, unshared) in chosen.items()
        if kind in unshared
    ]
    if problems:
        raise SettingsError(problems)


def _transport_limits(settings: Settings) -> TransportLimits:
    """What a connection may cost."""
    http = settings.http
    return TransportLimits(
        header_seconds=http.header_timeout_seconds,
        body_seconds=http.body_timeout_seconds,
        answer_seconds=http.answer_timeout_seconds,
        header_bytes=http.max_header_bytes,
        headers=http.max_headers,
        connections=http.max_connections,
    )


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


class _Process:
    """One process from its first signal handler to its last closed connection."""

    def __init__(self, container: Container, settings: Settings, roles: str) -> None:
        self._container = container
        self._settings = settings
        self._roles = roles
        self._paths: Paths = container.paths()
        self._grace = float(settings.http.grace_seconds)
        # What is left for closing after runs were interrupted.
        self._margin = min(2.0, self._grace / 4)

    async def run(self) -> int:
        life: Life = self._container.use_cases.life()
        self._own_signals(life)
        self._refuse_drained()
        listener = self._listener()
        try:
            if listener is not None:
                allow_connections(self._settings.http.max_connections)
            for name, address in remote_addresses(self._settings) if listener is not None else ():
                structlog.get_logger("headrace").warning("server.remote", message=f"{name} ({address}) {REACHABLE}.")
            if shares_credentials(self._settings):
                sentence = f"HEADRACE_METADATA__USER {SHARED}."
                structlog.get_logger("headrace").warning("records.credentials_shared", message=sentence)
            self._container.gateways.bench().warm()  # It gets ready while stores are opened.
            async with running(self._container, with_store=True) as use_cases:
                if life.is_draining:
                    return 0  # The signal came while things were being opened.
                _leave_out_what_stays()
                return await self._serve(use_cases, listener)
        finally:
            gc.unfreeze()  # What is never let go of, DuckDB's bindings complain of at the end of the process.
            if listener is not None:
                listener.close()

    async def _serve(self, use_cases: UseCases, listener: socket.socket | None) -> int:
        worker = Worker(use_cases) if WORKER in self._roles else None
        background = BackgroundTasks()
        drain_file = self._settings.worker.drain_file or self._paths.drain
        async with self._answering(use_cases, listener) as url:
            ticker = Ticker(use_cases, worker, self._roles, drain_file)
            background.keep(ticker.run, name="tick")
            background.keep(use_cases.announcer.keep_telling, name="tell")
            consuming = background.keep(worker.consume, name="consume") if worker else None
            structlog.get_logger("headrace").info(
                "process.ready", roles=self._roles, url=url, worker_id=use_cases.workers.own.id
            )
            await use_cases.life.wait_for_shutdown()
            fail_at("drain.start")
            if consuming is not None:
                consuming.cancel()
            is_drained = await self._drain(use_cases, worker)
            fail_at("drain.last_second")
            await background.cancel(self._margin)
        with contextlib.suppress(PlatformError):  # Forgotten by the others once it is not heard of.
            await use_cases.announcer.flush()
            await use_cases.workers.leave()
        if not is_drained:
            os._exit(1)  # A driver that cannot be interrupted must not keep the process beyond its grace (X2).
        return 0

    async def _drain(self, use_cases: UseCases, worker: Worker | None) -> bool:
        with contextlib.suppress(PlatformError):
            await use_cases.workers.beat(self._roles, running=worker.running if worker else 0)
        if worker is None:
            return True
        return await worker.stop(max(0.5, self._grace - 2 * self._margin), self._margin)

    @contextlib.asynccontextmanager
    async def _answering(self, use_cases: UseCases, listener: socket.socket | None) -> AsyncIterator[str | None]:
        """Answer requests while the block lasts, and those that are in flight when it ends."""
        if listener is None:
            yield None
            return
        settings = self._settings
        if API in self._roles:
            await ensure_admin_key(use_cases, self._paths)
            app = create_app(
                use_cases,
                title=settings.app.name,
                max_body_bytes=settings.http.max_body_bytes,
                limits=document_limits(settings),
                hosts=AllowedHosts((*settings.http.allowed_hosts, settings.http.host)),
            )
        else:
            app = create_probes(use_cases)
        http = settings.http
        config = uvicorn.Config(
            Turnstile(app, inside=http.max_requests, wait_seconds=http.request_wait_seconds),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=protocol_within(_transport_limits(settings)),
            ws="none",
            timeout_keep_alive=settings.http.keep_alive_seconds,
            timeout_graceful_shutdown=max(1, int(self._margin)),
        )
        server = Server(config)
        waiting = listener.dup()  # Keeps what was connected and not yet accepted when the server closes its own.
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        serving.add_done_callback(lambda _: use_cases.life.begin_shutdown())  # Should it end by itself, so do we.
        url = _url_of(listener)
        if self._roles == UP:
            write_server(self._paths.server, url)
        if API in self._roles:
            structlog.get_logger("headrace").info("server.listening", url=url, key_file=str(self._paths.admin_key))
        try:
            yield url
        finally:
            if self._roles == UP:
                remove_server(self._paths.server)
            await _leave(server, waiting)
            await serving

    def _own_signals(self, life: Life) -> None:
        """The first SIGTERM or SIGINT drains, the second stops at once (X3)."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if life.is_draining:
                os._exit(128 + number)
            life.begin_shutdown()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)

    def _refuse_drained(self) -> None:
        drain_file = self._settings.worker.drain_file or self._paths.drain
        if drain_file.exists():
            raise UnavailableError(
                f"The drain file {drain_file} is there, so nothing starts; remove it first.", code="server.drained"
            )

    def _listener(self) -> socket.socket | None:
        """Take the socket before anything is opened, so that a taken port is the first thing told.

        Raises:
            UnavailableError: `server.running`, `server.port_taken`.
        """
        settings = self._settings
        if self._roles == WORKER:
            port = settings.worker.port
            return None if port is None else _bind(settings.worker.host, port)
        other = read_server(self._paths.server) if self._roles == UP else None
        if other is not None:
            raise UnavailableError(
                f"headrace up runs already on this home: {other.url} (process {other.pid}).", code="server.running"
            )
        return _bind(settings.http.host, settings.http.port)


async def _leave(server: Server, waiting: socket.socket) -> None:
    """End a server in steps that no request falls between."""
    # Answers say `Connection: close` meanwhile, so that clients leave before they are left.
    await asyncio.sleep(_LINGER_SECONDS)
    for accepting in server.servers:
        accepting.close()
    await asyncio.to_thread(refuse_waiting, waiting)
    # Whoever was accepted a moment ago gets to say what it wants.
    await asyncio.sleep(_LINGER_SECONDS)
    server.should_exit = True


def _leave_out_what_stays() -> None:
    """Spare the collector what lasts as long as the process: visiting it took a tenth of a second, in which nobody is answered."""
    gc.collect()
    gc.freeze()


def _url_of(listener: socket.socket) -> str:
    """Where this machine reaches the listener."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"The address {host}:{port} cannot be bound: {error.strerror}. Choose another with --port.",
            code="server.port_taken",
        ) from error
    return listener
