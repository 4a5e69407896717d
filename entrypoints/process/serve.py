"""`headrace up`, `api` and `worker`: one process with one or both roles, drained in order when a signal comes."""

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator

import uvicorn

from application.operations.health import Life
from domain.errors import PlatformError, UnavailableError
from domain.failpoints import fail_at
from entrypoints.composition.container import Container
from entrypoints.composition.lifecycle import ensure_admin_key, running
from entrypoints.composition.paths import Paths
from entrypoints.composition.serving import Serving
from entrypoints.http.app import create_app, create_probes
from entrypoints.http.hosts import AllowedHosts, is_loopback
from entrypoints.http.server import Server
from entrypoints.http.transport import TransportLimits, protocol_within
from entrypoints.http.turnstile import Turnstile
from entrypoints.log import log
from entrypoints.process.descriptors import allow_connections
from entrypoints.process.heap import give_back_large
from entrypoints.process.listener import bound, url_of
from entrypoints.process.refusing import refuse_waiting
from entrypoints.process.server_file import read_server, remove_server, write_server
from entrypoints.process.signals import own_signals
from entrypoints.use_cases import UseCases
from entrypoints.worker.background import BackgroundTasks
from entrypoints.worker.main import Worker
from entrypoints.worker.ticker import Ticker

API, WORKER = "api", "worker"
UP = f"{API} {WORKER}"

_LINGER_SECONDS = 0.3


def serve(container: Container, serving: Serving, roles: str) -> int:
    """Serve until a signal or a wish to drain; return the exit code."""
    give_back_large()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(container, serving, roles).run())


def _transport_limits(http: Serving) -> TransportLimits:
    """What a connection may cost."""
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

    def __init__(self, container: Container, serving: Serving, roles: str) -> None:
        self._container = container
        self._serving = serving
        self._roles = roles
        self._paths: Paths = container.paths()
        self._grace = serving.grace_seconds
        # What is left for closing after runs were interrupted.
        self._margin = min(2.0, self._grace / 4)

    async def run(self) -> int:
        life: Life = self._container.use_cases.life()
        own_signals(life)
        self._refuse_drained()
        listener = self._listener()
        try:
            if listener is not None:
                allow_connections(self._serving.max_connections)
            for sentence in self._serving.reachable if listener is not None else ():
                log.warning("server.remote", message=sentence)
            for sentence in self._serving.shared:
                log.warning("records.credentials_shared", message=sentence)
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
        async with self._answering(use_cases, listener) as url:
            ticker = Ticker(use_cases, worker, self._roles, self._serving.drain_file)
            background.keep(ticker.run, name="tick")
            background.keep(use_cases.announcer.keep_telling, name="tell")
            background.keep(use_cases.health.watch, name="health")
            background.keep(use_cases.measurer.watch, name="measure")
            consuming = background.keep(worker.consume, name="consume") if worker else None
            log.info("process.ready", roles=self._roles, url=url, worker_id=use_cases.workers.own.id)
            await use_cases.life.wait_for_shutdown()
            use_cases.telemetry.begin_close()
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
        http = self._serving
        is_local = is_loopback(str(listener.getsockname()[0]))
        if API in self._roles:
            await ensure_admin_key(use_cases, self._paths)
            app = create_app(
                use_cases,
                title=http.title,
                api_version=http.api_version,
                max_body_bytes=http.max_body_bytes,
                limits=http.documents,
                hosts=AllowedHosts(http.allowed_hosts),
                is_local=is_local,
            )
        else:
            app = create_probes(use_cases, is_local=is_local)
        config = uvicorn.Config(
            Turnstile(app, inside=http.max_requests, wait_seconds=http.request_wait_seconds),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            http=protocol_within(_transport_limits(http)),
            ws="none",
            timeout_keep_alive=http.keep_alive_seconds,
            timeout_graceful_shutdown=max(1, int(self._margin)),
        )
        server = Server(config)
        waiting = listener.dup()  # Keeps what was connected and not yet accepted when the server closes its own.
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        serving.add_done_callback(lambda _: use_cases.life.begin_shutdown())  # Should it end by itself, so do we.
        url = url_of(listener)
        if self._roles == UP:
            write_server(self._paths.server, url)
        if API in self._roles:
            log.info("server.listening", url=url, key_file=str(self._paths.admin_key))
        try:
            yield url
        finally:
            if self._roles == UP:
                remove_server(self._paths.server)
            await _leave(server, waiting)
            await serving

    def _refuse_drained(self) -> None:
        drain_file = self._serving.drain_file
        if drain_file.exists():
            raise UnavailableError(
                f"The drain file {drain_file} is there, so nothing starts; remove it first.", code="server.drained"
            )

    def _listener(self) -> socket.socket | None:
        """Take the socket before anything is opened, so that a taken port is the first thing told.

        Raises:
            UnavailableError: `server.running`, `server.port_taken`.
        """
        serving = self._serving
        if self._roles == WORKER:
            return None if serving.probes_port is None else bound(serving.probes_host, serving.probes_port)
        other = read_server(self._paths.server) if self._roles == UP else None
        if other is not None:
            raise UnavailableError(
                f"headrace up runs already on this home: {other.url} (process {other.pid}).", code="server.running"
            )
        return bound(serving.host, serving.port)


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
    """Spare the collector what lasts as long as the process: visiting it took a tenth of a second, in which nobody is
    answered.
    """
    gc.collect()
    gc.freeze()
