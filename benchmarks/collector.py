"""A collector that takes whatever it is sent and looks at none of it, in a process of its own: what the collector does
with spans is no cost of ours, and it can be stopped in earnest.

Arguments: the status that it answers. It prints its port.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3


@dataclass
class Sink:
    """Where it listens, and how it is stopped."""

    process: subprocess.Popen[str]
    endpoint: str

    def environment(self, rate: float) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint, "OTEL_SAMPLING_RATE": str(rate)}

    def received(self) -> int:
        """How many bytes of spans have arrived."""
        return int(urllib3.request("GET", self.endpoint, retries=False, timeout=10.0).data)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


@contextmanager
def sinking(status: int = 200) -> Iterator[Sink]:
    """Have one run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.collector", str(status)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    sink = Sink(process, f"http://127.0.0.1:{process.stdout.readline().strip()}")
    try:
        yield sink
    finally:
        sink.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200
    taken = 0

    def do_POST(self) -> None:
        read = len(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/traces":
            type(self).taken += read
        self._answer(self.status, b"")

    def do_GET(self) -> None:
        self._answer(200, str(self.taken).encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(status: int) -> None:
    _Handler.status = status
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
