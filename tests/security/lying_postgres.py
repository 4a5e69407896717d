"""A server that is an honest Postgres until it hears a certain word, and lies from then on: too much, or nothing."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

PIECE = 2**20


def message(kind: bytes, body: bytes) -> bytes:
    """A message of the protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body


_SETTINGS = ("server_version=16.0", "client_encoding=UTF8", "standard_conforming_strings=on", "integer_datetimes=on")
SIGNED_IN = (
    message(b"R", struct.pack("!I", 0))
    + b"".join(message(b"S", each.replace("=", "\0").encode() + b"\0") for each in _SETTINGS)
    + message(b"K", struct.pack("!II", 1, 2))
)
READY = message(b"Z", b"I")


def _one(kind: bytes, begin: bytes) -> Iterator[bytes]:
    """One message of a gigabyte."""
    yield kind + struct.pack("!I", 2**30 - 1) + begin
    while True:
        yield b"x" * PIECE


def _many(*messages: bytes, first: bytes = b"") -> Iterator[bytes]:
    """Messages without end."""
    yield first
    while True:
        yield b"".join(messages) * max(1, PIECE // sum(map(len, messages)))


def _settings() -> Iterator[bytes]:
    """Settings without end, each of another name."""
    number = 0
    while True:
        yield b"".join(message(b"S", b"p%d\0%s\0" % (number + i, b"x" * 900)) for i in range(200))
        number += 200


def lie(mode: str) -> Iterator[bytes]:
    """What a server sends from now on."""
    match mode:
        case "silent":
            return iter(())
        case "error":
            return _one(b"E", b"SERROR\0C42601\0M")
        case "notice":
            return _one(b"N", b"SNOTICE\0C00000\0M")
        case "setting":
            return _one(b"S", b"name\0")
        case "settings":
            return _settings()
        case "notices":
            return _many(message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 900 + b"\0\0"))
        case "notifications":
            return _many(message(b"A", struct.pack("!I", 1) + b"c\0" + b"x" * 900 + b"\0"))
        case "rows":
            shape = message(b"T", struct.pack("!H", 1) + b"a\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0))
            row = message(b"D", struct.pack("!HI", 1, 900) + b"x" * 900)
            return _many(row, first=message(b"1", b"") + message(b"2", b"") + shape)
        case "empty rows":
            columns = b"".join(b"a\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for _ in range(1600))
            row = message(b"D", struct.pack("!H", 1600) + b"\xff" * 4 * 1600)
            return _many(
                row, first=message(b"1", b"") + message(b"2", b"") + message(b"T", struct.pack("!H", 1600) + columns)
            )
        case "copied row" | "copied rows":
            begin = message(b"H", b"\1" + struct.pack("!HHH", 2, 1, 1))
            header, row = b"PGCOPY\n\xff\r\n\0" + b"\0" * 8, struct.pack("!HI", 2, 4) + b"aaaa"
            if mode == "copied row":
                return _after(begin, _one(b"d", header + row + struct.pack("!I", 2**30 - 100)))
            row += struct.pack("!I", 4) + b"bbbb"
            return _many(message(b"d", row), first=begin + message(b"d", header + row))
    raise AssertionError(mode)


def _after(first: bytes, more: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from more


class LyingPostgres:
    """Relays to a server until a client says `at`. Without a server, it lets everybody in and lies as the
    first thing.
    """

    def __init__(self, mode: str, at: bytes = b"", server_port: int | None = None) -> None:
        self.told = 0
        self._clients = list[socket.socket]()
        self._mode, self._at, self._server_port = mode, at, server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def begin(self) -> None:
        """Lie to all who are connected, unasked."""
        for client in self._clients:
            threading.Thread(target=self._lie, args=(client,), daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(30)
            self._clients.append(client)
            if self._server_port is not None:
                self._relay(client, self._server_port)
            else:
                while client.recv(PIECE)[4:8] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
                    client.sendall(b"N")
                client.sendall(SIGNED_IN)
                if self._at != b"sign-in":
                    client.sendall(READY)
                    client.recv(PIECE)
            self._lie(client)

    def _relay(self, client: socket.socket, port: int) -> None:
        """Be honest until the word is said."""
        is_lying = threading.Event()

        def back() -> None:
            with suppress(OSError):
                while (data := server.recv(PIECE)) and not is_lying.is_set():
                    client.sendall(data)
                if not is_lying.is_set():
                    client.shutdown(socket.SHUT_WR)

        with socket.create_connection(("127.0.0.1", port)) as server:
            thread = threading.Thread(target=back, daemon=True)
            thread.start()
            while self._at not in (data := client.recv(PIECE)):
                if not data:
                    server.shutdown(socket.SHUT_WR)
                    thread.join()
                    raise ConnectionError
                server.sendall(data)
            is_lying.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _lie(self, client: socket.socket) -> None:
        self.told += 1
        swallowing = threading.Thread(target=self._swallow, args=(client,), daemon=True)
        swallowing.start()
        with suppress(OSError):
            for piece in lie(self._mode):
                client.sendall(piece)
        swallowing.join()

    def _swallow(self, client: socket.socket) -> None:
        with suppress(OSError):
            while client.recv(PIECE):
                pass
