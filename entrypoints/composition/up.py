"""`headrace up`: API and worker in one process, drained in order when a signal comes."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Generator
from types import FrameType

import structlog
import uvicorn

from application.operations.health import Life, LifeState
from domain.errors import UnavailableError
from entrypoints.composition.container import Container
from entrypoints.composition.lifecycle import ensure_admin_key, running
from entrypoints.composition.paths import Paths
from entrypoints.composition.server_file import read_server, remove_server, write_server
from entrypoints.http.app import create_app
from entrypoints.worker.main import Worker
from infrastructure.settings import Settings

_MARGIN_SECONDS = 2.0


class _Server(uvicorn.Server):
    """uvicorn that flips the drain flag at the first signal, stops hard at the second, and lets us exit with 0."""

    def __init__(self, config: uvicorn.Config, life: Life) -> None:
        super().__init__(config)
        self._life = life

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            os._exit(128 + sig)
        self._life.state = LifeState.SHUTTING_DOWN
        self.should_exit = True


def serve(container: Container, settings: Settings) -> int:
    """Serve until a signal; return the exit code."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(container, settings))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop


async def _serve(container: Container, settings: Settings) -> int:
    paths: Paths = container.paths()
    other = read_server(paths.server)
    if other is not None:
        raise UnavailableError(
            f"headrace up runs already on this home: {other.url} (process {other.pid}).", code="server.running"
        )
    listener = _bind(settings.http.host, settings.http.port)
    try:
        async with running(container, with_store=True) as use_cases:
            await ensure_admin_key(use_cases, paths)
            app = create_app(use_cases, title=settings.app.name, max_body_bytes=settings.http.max_body_bytes)
            grace = float(settings.http.grace_seconds)
            config = uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, int(grace - _MARGIN_SECONDS)),
            )
            worker = Worker(use_cases)
            await worker.start()
            host, port = listener.getsockname()[:2]
            url = f"http://{host}:{port}"
            write_server(paths.server, url)
            structlog.get_logger("headrace").info("server.listening", url=url, key_file=str(paths.admin_key))
            try:
                await _Server(config, use_cases.life).serve(sockets=[listener])
            finally:
                remove_server(paths.server)
                is_drained = await worker.stop(max(1.0, grace - _MARGIN_SECONDS))
            return 0 if is_drained else 1
    finally:
        listener.close()


def _bind(host: str, port: int) -> socket.socket:
    """Take the socket before anything is opened, so that a taken port is the first thing told.

    Raises:
        UnavailableError: `server.port_taken`.
    """
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
