"""A server that speaks as much of Postgres' protocol as it takes to ask for a password, and keeps what it is sent."""

import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

CLEAR = struct.pack("!cII", b"R", 8, 3)
MD5 = struct.pack("!cII", b"R", 12, 5) + b"salt"
KERBEROS = struct.pack("!cII", b"R", 8, 7)
OK = struct.pack("!cII", b"R", 8, 0)
READY = struct.pack("!cIc", b"Z", 5, b"I")
SCRAM = struct.pack("!cII", b"R", 8 + 15, 10) + b"SCRAM-SHA-256\0\0"


def much_work(sent: bytes) -> bytes:
    """Ask for two thousand million rounds of hashing, with the nonce that the client has sent."""
    nonce = sent.split(b"r=")[-1]
    said = b"r=" + nonce + b"x,s=c2FsdHNhbHQ=,i=2147483647"
    return struct.pack("!cII", b"R", 8 + len(said), 11) + said


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that vouches for itself, and its key."""
    made, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
         "-out", made, "-days", "3", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


class FakePostgres:
    """Answers the start with the given messages, one after each that it is sent, and then hangs up."""

    def __init__(
        self, *says: bytes | Callable[[bytes], bytes], tls: ssl.SSLContext | None = None, is_slow: bool = False
    ) -> None:
        self.received = b""
        self.peers: list[object] = []
        self._says: Sequence[bytes | Callable[[bytes], bytes]] = says
        self._tls = tls
        self._is_slow = is_slow
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with suppress(OSError, struct.error):
            while True:
                sent = connection.recv(65536)
                if sent[4:8] == struct.pack("!I", 80877103) and self._tls is not None:
                    connection.sendall(b"S")
                    secured = self._tls.wrap_socket(connection, server_side=True)
                    self.peers.append(secured.getpeercert(binary_form=True))
                    connection = secured
                elif sent[4:8] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
                    connection.sendall(b"N")
                else:
                    break
            self._talk(connection, sent)
        connection.close()

    def _talk(self, connection: socket.socket, sent: bytes) -> None:
        self.received += sent
        for say in self._says:
            message = say(sent) if callable(say) else say
            for piece in [message[i : i + 1] for i in range(len(message))] if self._is_slow else [message]:
                connection.sendall(piece)
            sent = connection.recv(65536)
            self.received += sent


class TlsRelay:
    """Speaks TLS before a real server that does not."""

    def __init__(self, server_port: int, tls: ssl.SSLContext) -> None:
        self.secured = 0
        self._server_port = server_port
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._relay, args=(self._listening.accept()[0],), daemon=True).start()

    def _relay(self, connection: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._server_port)) as server:
            assert connection.recv(8)[4:] == struct.pack("!I", 80877103)
            connection.sendall(b"S")
            client = self._tls.wrap_socket(connection, server_side=True)
            self.secured += 1
            client.settimeout(0.01)  # One thread at a time may use it.
            server.settimeout(0.01)
            with client:
                while True:
                    for source, sink in ((client, server), (server, client)):
                        with suppress(TimeoutError):
                            data = source.recv(65536)
                            if not data:
                                return
                            sink.settimeout(10)
                            sink.sendall(data)
                            sink.settimeout(0.01)
