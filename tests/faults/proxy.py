"""A TCP proxy of the tests' own, between Headrace and a server: slow, cut, reset, or silent at a chosen moment."""

import contextlib
import selectors
import socket
import struct
import threading
import time


class Proxy:
    """Forwards to `port`. `delay_seconds` slows every chunk; `silence()` stops forwarding; `reset()` cuts with RST.

    Once a client has said `silent_after`, nothing is forwarded any more.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay_seconds = 0.0
        self.cut_after: bytes | None = None
        self.silent_after: bytes | None = None
        self.cuts = 0
        self._is_silent = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._stopping = False
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *, is_silent: bool = True) -> None:
        """Forward nothing from now on, in either direction, and accept no new connection; or talk again."""
        self._is_silent = is_silent
        if not is_silent:
            self.reset()

    def reset(self) -> None:
        """Cut every connection with a reset."""
        for pair in list(self._pairs):
            for side in pair:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    side.close()

    def close(self) -> None:
        self._stopping = True
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_silent:
                continue  # Connected, and never answered.
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        pair = (client, server)
        self._pairs.add(pair)
        try:
            self._pump(client, server)
        finally:
            self._pairs.discard(pair)
            for side in pair:
                with contextlib.suppress(OSError):
                    side.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select(timeout=0.2):
                    if self._is_silent:
                        time.sleep(0.1)
                        continue
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    content = source.recv(65536)
                    if not content:
                        return
                    if source is client and self.silent_after and self.silent_after in content:
                        self._is_silent = True
                        continue
                    if self.delay_seconds:
                        time.sleep(self.delay_seconds)
                    sink.sendall(content)
                    if source is client and self.cut_after and self.cut_after in content:
                        # The server has it, and its answer never comes back.
                        self.cut_after = None
                        self.cuts += 1
                        return
